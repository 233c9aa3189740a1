"""The JSON Schema: editors complete from it, and it agrees with the loader."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from mloc_tasks.spec import json_schema
from tests.spec.reading import DOCUMENTS, HEAD

jsonschema = pytest.importorskip("jsonschema")

TEMPLATES = sorted((Path(__file__).parents[2] / "templates").glob("*.yaml"))


@pytest.fixture(scope="module")
def validator() -> Any:
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize("path", [*DOCUMENTS, *TEMPLATES], ids=lambda path: path.stem)
def test_documents_follow_the_schema(path: Path, validator: Any) -> None:
    assert [error.message for error in validator.iter_errors(yaml.safe_load(path.read_text()))] == []


@pytest.mark.parametrize(
    "spec",
    [
        "{taskType: echo, timout: 3}",
        "{taskType: echo, priority: 11}",
        "{taskType: inference, inference: {max_token: 3}}",
        "{taskType: inference, inference: {temperature: -1}}",
        "{taskType: sft, training: {packng: true}}",
        "{resources: {hardware: {memory: 32Gb}}}",
        "{data: {type: lst}}",
        "{stages: []}",
        "{stages: [{taskType: echo}]}",
        "{stages: [{name: a}], graph: {nodes: [{name: b}]}}",
    ],
)
def test_mistakes_do_not_follow_the_schema(spec: str, validator: Any) -> None:
    assert list(validator.iter_errors(yaml.safe_load(f"{HEAD}spec: {spec}\n")))


@pytest.mark.parametrize(
    "spec",
    [
        "{task_type: echo, slo_seconds: 2h, on_failure: continue}",
        "{taskType: echo, sloSeconds: 90, onFailure: stop, retry: {maxAttempts: '3'}}",
        "{taskType: my-plugin, colour: blue}",
        "{taskType: inference, inference: {max_new_tokens: '12', temperature: '1e-1', n: '${a.result.n}'}}",
        "{taskType: sft, training: {learning_rate: 1.41e-5, numTrainEpochs: 1, save_strategy: epoch}}",
        "{stages: [{name: a, dependencies: [], spec: {data: '${b.items}'}}]}",
        "{model: {source: {revision: main}, vllm: {any: thing}}}",
    ],
)
def test_both_styles_and_short_forms_follow_the_schema(spec: str, validator: Any) -> None:
    assert [error.message for error in validator.iter_errors(yaml.safe_load(f"{HEAD}spec: {spec}\n"))] == []


def test_every_key_is_described() -> None:
    def undescribed(schema: Any, path: str) -> list[str]:
        found = [
            f"{path}.{name}"
            for name, value in schema.get("properties", {}).items()
            if not value.get("description") and name not in ("type", "metadata", "spec")
        ]
        return found + [each for name, part in schema.get("$defs", {}).items() for each in undescribed(part, name)]

    assert undescribed(json_schema(), "") == []
