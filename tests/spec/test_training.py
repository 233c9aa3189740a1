"""`training`: our names, TRL's and transformers', known without importing either."""

from __future__ import annotations

import dataclasses
import sys

import pytest

from mloc_tasks.spec.model.training import SAME, Training
from mloc_tasks.spec.training_arguments import PPO_ARGUMENTS, all_arguments, arguments_of
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


def test_arguments_that_ppo_follows_are_taken_without_a_warning() -> None:
    for name in PPO_ARGUMENTS:
        assert load(_train("ppo", f"{{{name}: null}}")).warnings == (), name


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
        ("dpo", "{kl_target: 4}", "ppo"),
        ("grpo", "{length_penalty: 0.1}", "ppo"),
        ("dpo", "{entropy_coef: 0.1}", "ppo, grpo"),
        ("sft", "{beta: 0.1}", "dpo, grpo"),
        ("ppo", "{fsdp: full_shard}", "TRL's trainers"),
        ("ppo", "{use_cpu: true}", "TRL's trainers"),
        ("ppo", "{beta: 0.1}", "dpo, grpo"),
    ],
)
def test_argument_of_another_method_is_a_warning(task_type: str, training: str, owner: str) -> None:
    (warning,) = load(_train(task_type, training)).warnings
    assert f"is not used by {task_type}" in warning.message
    assert owner in warning.suggestion


@pytest.mark.parametrize("target", ["kl_target", "klTarget", "target"])
def test_what_the_kl_weight_aims_at_has_its_old_name_too(target: str) -> None:
    training = load(_train("ppo", f"{{{target}: 6, target_kl: 0.1}}")).stages[0].spec.training
    assert training is not None
    assert (training.kl_target, training.target_kl) == (6, 0.1)


@pytest.mark.parametrize(
    ("task_type", "rest", "path", "words", "suggestion"),
    [
        ("sft", "training: {finetuning_type: qlora}", "training.finetuning_type", "not one of full, lora", "lora"),
        ("ppo", "training: {finetuning_type: full}\n  lora: {r: 8}", "training.finetuning_type", "contradicts", "keep"),
        ("lora_sft", "training: {finetuning_type: full}", "training.finetuning_type", "contradicts", "taskType: sft"),
        ("ppo", "training: {length_penalty: -1}", "training.length_penalty", "at least 0", ""),
        ("ppo", "training: {free_tokens: 1.5}", "training.free_tokens", "whole number", ""),
        ("dpo", "parallel: {enabled: true}", "parallel", "cannot be split into shards", "nproc_per_node"),
        ("grpo", "training: {reward_functions: [a:b, 'a b']}", "training.reward_functions[1]", "no function", "mloc.r"),
        ("grpo", "training: {reward_functions: 'a://b'}", "training.reward_functions", "no function", ":function"),
    ],
)  # fmt: skip
def test_training_that_cannot_be(task_type: str, rest: str, path: str, words: str, suggestion: str) -> None:
    document = MODEL + DATA + f"  taskType: {task_type}\n  reward_model: {{identifier: r}}\n  {rest}\n"
    problem = only(problems(document))
    assert problem.path == f"spec.{path}"
    assert words in problem.message
    assert suggestion in problem.suggestion


def test_a_stage_takes_the_shared_lora_block_out() -> None:
    stages = "  stages:\n  - {name: all, taskType: sft, lora: null, training: {finetuning_type: full}}\n"
    assert load(MODEL + DATA + "  lora: {r: 8}\n" + stages).stages[0].spec.lora is None


@pytest.mark.parametrize(
    ("task_type", "data", "words", "suggestion"),
    [
        ("dpo", "{prompts: [a]}", "pairs of answers, and these are single texts", "preferences"),
        ("reward", "{type: list, items: [a]}", "pairs of answers, and these are single texts", "preferences"),
        ("sft", "{preferences: [{prompt: a, chosen: b, rejected: c}]}", "these are pairs", "response_column: chosen"),
    ],
)
def test_data_that_the_method_cannot_learn_from(task_type: str, data: str, words: str, suggestion: str) -> None:
    problem = only(problems(MODEL + f"  taskType: {task_type}\n  data: {data}\n"))
    assert problem.path == "spec.data"
    assert words in problem.message
    assert suggestion in problem.suggestion


@pytest.mark.parametrize(
    ("pair", "path", "words"),
    [
        ("{prompt: a, chosen: b}", "[0].rejected", "missing"),
        ("{prompt: 5, chosen: b, rejected: c}", "[0].prompt", "5 is not an input"),
        ("{prompt: a, chosen: [{role: assistant}], rejected: c}", "[0].chosen[0]", "not a chat message"),
        ("{prompt: a, chosen: '${x.result.y}', rejected: c, best: d}", "[0].best", "unknown key"),
    ],
)
def test_problem_in_a_pair(pair: str, path: str, words: str) -> None:
    stages = "  stages:\n  - {name: x, taskType: echo}\n  - name: train\n    taskType: dpo\n"
    problem = only(problems(MODEL + stages + f"    data: {{preferences: [{pair}]}}\n"))
    assert problem.path == f"spec.stages[1].data.preferences{path}"
    assert words in problem.message


def test_the_better_answers_of_pairs_can_be_imitated() -> None:
    data = "{response_column: chosen, preferences: [{prompt: a, chosen: b, rejected: c}]}"
    assert load(MODEL + f"  taskType: sft\n  data: {data}\n").warnings == ()


@pytest.mark.parametrize(
    "reward_model",
    [
        "{type: sentiment, identifier: org/model}",
        "{identifier: org/model}",
        "{type: classifier, path: models/reward}",
        "{type: reward, url: 's3://bucket/reward'}",
        "{type: function, identifier: 'package.module:Scorer.score'}",
        "{type: function, identifier: vader}",
        "{type: function, identifier: '${before.result.message}'}",
        "{type: '${before.result.message}', identifier: a}",
    ],
)
def test_reward_model(reward_model: str) -> None:
    stages = "  stages:\n  - {name: before, taskType: echo}\n  - name: train\n    taskType: ppo\n"
    assert load(MODEL + DATA + stages + f"    reward_model: {reward_model}\n").warnings == ()


@pytest.mark.parametrize(
    ("reward_model", "path", "words", "suggestion"),
    [
        ("{type: sentimet, identifier: a}", ".type", "not one of sentiment, classifier, reward,", "`sentiment`"),
        ("{type: function, identifier: 'a/b.py'}", ".identifier", "'a/b.py' names no function", ".module:function"),
        ("{type: function, path: a}", "", "named by `identifier` alone", "module:function"),
        ("{type: classifier}", "", "exactly one of `identifier`, `url` and `path`", ""),
        ("{identifier: a, url: 's3://b/c'}", "", "exactly one", ""),
    ],
)  # fmt: skip
def test_problem_in_a_reward_model(reward_model: str, path: str, words: str, suggestion: str) -> None:
    problem = only(problems(MODEL + DATA + f"  taskType: ppo\n  reward_model: {reward_model}\n"))
    assert problem.path == f"spec.reward_model{path}"
    assert words in problem.message
    assert suggestion in problem.suggestion


def test_reward_functions_score_for_grpo_alone() -> None:
    functions = "  training: {reward_functions: 'rewards:brief'}\n"
    training = load(MODEL + DATA + "  taskType: grpo\n" + functions).stages[0].spec.training
    assert training is not None
    assert training.reward_functions == ("rewards:brief",)
    (found,) = problems(MODEL + DATA + "  taskType: ppo\n" + functions)
    assert "nothing that scores completions" in found.message
    assert "reward_functions" in only(load(_train("ppo", "{reward_functions: [a]}")).warnings).message


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
