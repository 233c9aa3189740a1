"""Whole documents: the users' own and one with every task type."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mloc_tasks.spec import SpecError, StageSpec, load_workflow
from tests.spec.reading import DOCUMENTS, load


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.stem)
def test_document_is_valid_without_warnings(path: Path) -> None:
    assert load_workflow(path).warnings == ()


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.stem)
def test_stage_documents_are_json_and_type_to_the_same_spec_again(path: Path) -> None:
    for stage in load_workflow(path).stages:
        travelled = json.loads(json.dumps(stage.document, allow_nan=False))
        assert travelled == stage.document
        if "${" not in json.dumps(travelled):
            assert StageSpec.model_validate(travelled) == stage.spec


def test_readme_inference() -> None:
    workflow = load_workflow(next(path for path in DOCUMENTS if path.stem == "readme_inference"))
    (stage,) = workflow.stages
    assert (workflow.kind, workflow.metadata.owner, stage.name) == ("InferenceTask", "alice", "inference")
    hardware = stage.spec.resources.hardware
    assert (hardware.cpu, hardware.memory) == (8.0, 32 * 2**30)
    assert hardware.gpu is not None
    assert (hardware.gpu.type, hardware.gpu.count, hardware.gpu.memory) == ("any", 1, None)
    assert stage.spec.inference is not None
    assert stage.spec.inference.max_tokens == 128
    assert stage.spec.data is not None
    assert stage.spec.data.type == "list"
    assert len(stage.spec.data.items) == 2


def test_readme_ppo() -> None:
    (stage,) = load_workflow(next(path for path in DOCUMENTS if path.stem == "readme_ppo")).stages
    training = stage.spec.training
    assert training is not None
    assert (training.learning_rate, training.steps, training.ppo_epochs, training.target_kl) == (1.41e-5, 50, 4, 0.1)
    assert stage.spec.generation is not None
    assert stage.spec.generation.max_tokens == 256
    assert stage.spec.model is not None
    assert stage.spec.model.config.fp16


def test_values_in_every_form() -> None:
    stage = load_workflow(next(path for path in DOCUMENTS if path.stem == "every_task_type")).stage("questions")
    spec = stage.spec
    assert (spec.priority, spec.slo_seconds, spec.timeout) == (7, 7200, 5400)
    assert (spec.retry.max_attempts, spec.cache.enabled, spec.resources.tags) == (5, True, ("nvlink", "eu-west"))
    hardware = spec.resources.hardware
    assert (hardware.cpu, hardware.memory) == (0.5, 32 * 2**30)
    assert hardware.gpu is not None
    assert hardware.gpu.memory == 40 * 10**9
    assert spec.inference is not None
    assert (spec.inference.stop, spec.inference.max_failed_items, spec.inference.min_p) == (("\n\n",), 0.05, 0.05)
    assert (spec.parallel.max_shards, spec.parallel.shard_size) == (8, 64)


def test_gpu_count_zero_asks_for_none() -> None:
    (stage,) = load("  taskType: echo\n  resources: {hardware: {gpu: {count: 0}}}\n").stages
    assert stage.spec.resources.hardware.gpu is None


def test_default_model_fills_a_stage_without_one() -> None:
    spec = "  taskType: inference\n  inference: {prompts: [a]}\n  model: {vllm: {max_model_len: 10}}\n"
    (stage,) = load(spec, default_models={"inference": "some/model"}).stages
    assert stage.document["model"]["source"]["identifier"] == "some/model"
    assert stage.document["model"]["vllm"] == {"max_model_len": 10}


def test_plugin_keeps_keys_of_its_own() -> None:
    (stage,) = load("  taskType: my-executor\n  colour: {dark: true}\n", plugin_task_types=["my-executor"]).stages
    assert stage.spec.model_extra == {"colour": {"dark": True}}


def test_default_keys_of_a_plugin_do_not_reach_other_stages() -> None:
    spec = "  colour: blue\n  stages: [{name: a, taskType: mine}, {name: b, taskType: echo}]\n"
    workflow = load(spec, plugin_task_types=["mine"])
    assert "colour" in workflow.stage("a").document
    assert "colour" not in workflow.stage("b").document


def test_plugin_has_training_keys_of_its_own() -> None:
    (stage,) = load("  taskType: mine\n  training: {colour: blue}\n", plugin_task_types=["mine"]).stages
    assert stage.document["training"] == {"colour": "blue"}


def test_plugins_are_found_by_their_entry_points(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib import metadata

    group = "mloc.executors"
    entries = [
        metadata.EntryPoint("mine", "mine.executors:Mine", group),
        metadata.EntryPoint("transformers", "mloc_tasks.executors.transformers:TransformersExecutor", group),
    ]
    monkeypatch.setattr(metadata, "entry_points", lambda *, group: entries)
    assert load("  taskType: mine\n").stages[0].name == "mine"
    with pytest.raises(SpecError, match="unknown task type 'transformers'"):
        load("  taskType: transformers\n")


def test_workflow_cannot_be_changed_and_prints_as_json() -> None:
    workflow = load("  taskType: echo\n  output: {destination: {path: /a}}\n")
    with pytest.raises(ValueError, match="frozen"):
        workflow.kind = "EchoTask"  # type: ignore[misc]
    again = json.loads(workflow.model_dump_json())
    assert again["stages"][0]["document"] == workflow.stages[0].document
    assert again["warnings"][0]["severity"] == "warning"


def test_document_as_python_values() -> None:
    document = {"apiVersion": "mloc/v1", "metadata": {"name": "a"}, "spec": {"taskType": "echo", "message": ("a", 1)}}
    (stage,) = load_workflow(document).stages
    assert stage.document["message"] == ["a", 1]
