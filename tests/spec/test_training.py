"""`training`: our names, TRL's and transformers', known without importing either."""

from __future__ import annotations

import dataclasses
import sys

import pytest

from mloc_tasks.spec.model.training import SAME, Training
from mloc_tasks.spec.training_arguments import all_arguments, arguments_of
from tests.spec.reading import MODEL, load, only, problems

DATA = "  data: {url: d, split: s}\n"


def _train(task_type: str, training: str) -> str:
    return MODEL + DATA + f"  taskType: {task_type}\n  reward_model: {{identifier: r}}\n  training: {training}\n"


@pytest.mark.parametrize("task_type", ["sft", "lora_sft", "dpo", "grpo", "reward"])
def test_every_argument_of_the_method_is_taken_in_both_styles(task_type: str) -> None:
    for name in arguments_of(task_type):
        spelled = name.split("_")[0] + "".join(part.capitalize() for part in name.split("_")[1:])
        for key in (name, spelled):
            assert load(_train(task_type, f"{{{key}: null}}")).warnings == (), key


def test_arguments_match_the_installed_transformers() -> None:
    pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers", minversion="5.19", reason="the table is of 5.19")
    names = {field.name for field in dataclasses.fields(transformers.TrainingArguments) if field.init}
    assert names == set(arguments_of("ppo"))


def test_arguments_match_the_installed_trl() -> None:
    trl = pytest.importorskip("trl", minversion="1.16", reason="the table is of 1.16")
    for task_type, config in (
        ("sft", "SFTConfig"),
        ("dpo", "DPOConfig"),
        ("grpo", "GRPOConfig"),
        ("reward", "RewardConfig"),
    ):
        names = {field.name for field in dataclasses.fields(getattr(trl, config)) if field.init}
        assert names == set(arguments_of(task_type))


def test_our_names_stand_for_arguments_that_exist() -> None:
    assert set(SAME) <= set(Training.model_fields)
    assert set(SAME.values()) <= set(all_arguments())
    assert not set(SAME.values()) & set(Training.model_fields)


def test_values_written_as_text_are_parsed() -> None:
    stage = load(
        _train("sft", "{learning_rate: '1.41e-5', save_steps: '1e2', packing: 'yes', fsdp: full_shard}")
    ).stages[0]
    training = stage.spec.training
    assert training is not None
    assert training.learning_rate == 1.41e-5
    assert training.model_extra == {"save_steps": 100, "packing": True, "fsdp": "full_shard"}


@pytest.mark.parametrize(
    ("task_type", "training", "path", "words", "suggestion"),
    [
        ("sft", "{packng: true}", "packng", "unknown key", "did you mean `packing`?"),
        ("sft", "{saveStrateg: epoch}", "saveStrateg", "unknown key", "did you mean `saveStrategy`?"),
        ("sft", "{zzz: 1}", "zzz", "unknown key", "training.extra"),
        ("sft", "{bf16: maybe}", "bf16", "'maybe' is not true or false", ""),
        ("sft", "{save_steps: often}", "save_steps", "'often' is not a number", ""),
        ("sft", "{fsdp_config: 3}", "fsdp_config", "3 is not a mapping or text", ""),
        ("sft", "{batch_size: 1, per_device_train_batch_size: 2}", "per_device_train_batch", "the same", "keep one"),
        ("ppo", "{ppo_epochs: 0}", "ppo_epochs", "at least 1", ""),
        ("ppo", "{gamma: 2}", "gamma", "at most 1", ""),
        ("ppo", "{target_kl: -1}", "target_kl", "greater than 0", ""),
        ("ppo", "{nproc_per_node: many}", "nproc_per_node", "whole number", ""),
        ("ppo", "{visible_devices: [-1]}", "visible_devices", "", ""),
    ],
)  # fmt: skip
def test_problem_in_training(task_type: str, training: str, path: str, words: str, suggestion: str) -> None:
    problem = only(problems(_train(task_type, training)))
    assert problem.path.startswith(f"spec.training.{path}")
    assert words in problem.message
    assert suggestion in problem.suggestion


@pytest.mark.parametrize("training", ["{optimize_cuda_cache: true}", "{optimizeCudaCache: true}", "{log_with: null}"])
def test_key_that_does_nothing_today_is_a_warning(training: str) -> None:
    workflow = load(_train("ppo", training))
    (warning,) = workflow.warnings
    assert "is ignored" in warning.message
    assert workflow.stages[0].document["training"] == {}


@pytest.mark.parametrize(
    ("task_type", "training", "owner"),
    [
        ("sft", "{ppo_epochs: 4}", "ppo"),
        ("sft", "{beta: 0.1}", "dpo, grpo"),
        ("ppo", "{fsdp: full_shard}", "TRL's trainers"),
    ],
)
def test_argument_of_another_method_is_a_warning(task_type: str, training: str, owner: str) -> None:
    (warning,) = load(_train(task_type, training)).warnings
    assert f"is not used by {task_type}" in warning.message
    assert owner in warning.suggestion


def test_neither_trl_nor_transformers_is_imported() -> None:
    import subprocess

    code = (
        "import sys\nfrom mloc_tasks.spec import load_workflow\n"
        "load_workflow({'apiVersion': 'mloc/v1', 'metadata': {'name': 'a'}, 'spec': {'taskType': 'sft',"
        " 'model': {'source': {'identifier': 'm'}}, 'data': {'url': 'd', 'split': 's'},"
        " 'training': {'packing': True}}})\n"
        "heavy = {'celery', 'redis', 'boto3', 'torch', 'transformers', 'datasets', 'trl', 'vllm', 'numpy', 'pyarrow'}\n"
        "assert not heavy & sys.modules.keys(), heavy & sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
