"""What becomes of an output directory: archives, what is kept, and the addresses in the result."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mloc_tasks.artifacts.archives import unpack
from mloc_tasks.outputs import Outputs, fields_referred_to
from mloc_tasks.spec.model.output import Output

PATHS = {"metrics_url": "metrics.jsonl", "final_model_url": "final_model", "final_lora_url": "final_lora"}
FILES = ("final_lora/adapter_config.json", "final_model/config.json", "final_model/tokens/vocab.json", "metrics.jsonl")
SERVER = {"type": "http", "url": "http://localhost:1/results"}


@pytest.fixture
def out_dir(tmp_path: Path) -> Path:
    """What a training leaves."""
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "responses.json").write_text(json.dumps({"ok": True, "steps": 3}))
    return tmp_path


def outputs(*referenced: str, **output: Any) -> Outputs:
    return Outputs.of(PATHS, Output.model_validate(output), referenced=referenced)


def complete(found: Outputs, out_dir: Path) -> tuple[dict[str, Any], set[str]]:
    """The result and the names of the other files that are left."""
    found.complete(out_dir, lambda path: f"store://{path}")
    files = {path.relative_to(out_dir).as_posix() for path in out_dir.rglob("*") if path.is_file()}
    result: dict[str, Any] = json.loads((out_dir / "responses.json").read_text())
    return result, files - {"responses.json"}


def test_the_result_names_what_is_there_by_address(out_dir: Path) -> None:
    result, files = complete(outputs(), out_dir)
    assert files == set(FILES)
    assert result == {
        "ok": True,
        "steps": 3,
        "metrics_url": "store://metrics.jsonl",
        "final_model_url": "store://final_model",
        "final_lora_url": "store://final_lora",
    }


def test_what_is_not_there_has_no_address(out_dir: Path) -> None:
    for path in (out_dir / "final_lora").iterdir():
        path.unlink()
    (out_dir / "metrics.jsonl").unlink()
    result, _ = complete(outputs("final_lora_archive_url"), out_dir)
    assert result.keys() == {"ok", "steps", "final_model_url"}


def test_an_executor_without_addresses_keeps_its_result_as_it_is(out_dir: Path) -> None:
    (out_dir / "responses.json").write_bytes(b'{"ok":true}')
    complete(Outputs.of({}, Output()), out_dir)
    assert (out_dir / "responses.json").read_bytes() == b'{"ok":true}'


def test_an_archive_is_made_for_a_stage_that_refers_to_it(
    out_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    result, files = complete(outputs("final_model_archive_url"), out_dir)
    assert files == {*FILES, "final_model.tar.gz"}
    assert result["final_model_archive_url"] == "store://final_model.tar.gz"
    target = tmp_path_factory.mktemp("unpacked")
    unpack(out_dir / "final_model.tar.gz", target)
    assert (target / "tokens" / "vocab.json").read_text() == "final_model/tokens/vocab.json"


@pytest.mark.parametrize(
    ("artifacts", "archives"),
    [
        (["final_model.tar.gz"], {"final_model.tar.gz"}),
        (["*.tar.gz"], {"final_model.tar.gz", "final_lora.tar.gz"}),
        (["final_model*"], set()),
        (["*"], set()),
    ],
)
def test_an_archive_is_made_when_the_output_names_it(out_dir: Path, artifacts: list[str], archives: set[str]) -> None:
    _, files = complete(outputs(artifacts=artifacts), out_dir)
    assert {name for name in files if name.endswith(".tar.gz")} == archives


def test_archives_are_made_for_a_web_server_of_what_is_kept(out_dir: Path) -> None:
    _, files = complete(outputs(destination=SERVER), out_dir)
    assert files == {*FILES, "final_model.tar.gz", "final_lora.tar.gz"}
    _, files = complete(outputs(destination=SERVER, artifacts=["final_lora", "final_lora.tar.gz"]), out_dir)
    assert files == {"final_lora/adapter_config.json", "final_lora.tar.gz"}


def test_what_is_not_kept_has_no_address(out_dir: Path) -> None:
    result, files = complete(outputs(artifacts=["final_lora/", "metrics*"]), out_dir)
    assert files == {"final_lora/adapter_config.json", "metrics.jsonl"}
    assert result.keys() == {"ok", "steps", "metrics_url", "final_lora_url"}


def test_a_directory_that_is_kept_in_part_has_no_address(out_dir: Path) -> None:
    result, files = complete(outputs(artifacts=["final_model/config.json"]), out_dir)
    assert files == {"final_model/config.json"}
    assert "final_model_url" not in result


def test_an_archive_outlives_the_directory_that_is_not_kept(out_dir: Path) -> None:
    result, files = complete(outputs(artifacts=["final_model.tar.gz"]), out_dir)
    assert files == {"final_model.tar.gz"}
    assert result.keys() == {"ok", "steps", "final_model_archive_url"}


def test_what_a_later_stage_refers_to_is_kept_whatever_the_output_says(out_dir: Path) -> None:
    result, files = complete(outputs("final_model_url", artifacts=["metrics.jsonl"]), out_dir)
    assert files == {"metrics.jsonl", "final_model/config.json", "final_model/tokens/vocab.json"}
    assert result["final_model_url"] == "store://final_model"


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        (outputs(), set()),
        (outputs("final_lora_url", "steps"), {"final_lora_url"}),
        (outputs("final_model_archive_url"), {"final_model_archive_url", "final_model_url"}),
        (outputs(artifacts=["final_model/*"]), {"final_model_url"}),
        (outputs(artifacts=["final_lora.tar.gz"]), {"final_lora_archive_url", "final_lora_url"}),
        (outputs(artifacts=["*", "**/*.json"]), set()),
        (outputs(destination=SERVER), set()),
    ],
)
def test_wanted_is_what_something_asks_for_by_name(found: Outputs, wanted: set[str]) -> None:
    assert found.wanted == wanted


def test_references_are_found_wherever_a_document_has_them() -> None:
    documents = [
        {"checkpoint": {"load": {"url": "${train.result.final_model_archive_url}"}}},
        {"message": "see ${train.metrics_url}, ${other.result.final_lora_url} and ${train.result}"},
        {"model": {"adapters": [{"name": "a", "url": "${train.final_lora_url}"}]}, "note": "$${train.steps}"},
    ]
    assert fields_referred_to("train", documents) == {"final_model_archive_url", "metrics_url", "final_lora_url"}
