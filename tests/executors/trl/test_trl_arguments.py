from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from mloc_tasks.errors import ExecutionError
from mloc_tasks.executors.registry import missing_reason
from mloc_tasks.executors.training.checkpoints import Schedule
from mloc_tasks.executors.training.precision import Precision
from mloc_tasks.executors.trl.arguments import DPO, GRPO, OURS, REFUSED, REWARD, SFT, Method, config_for
from mloc_tasks.spec import StageSpec
from mloc_tasks.spec.model.training import SAME, Training
from mloc_tasks.spec.training_arguments import arguments_of
from tests.spec.reading import load

CPU = Precision(device="cpu", weights="float32", compute="float32")
GPU = Precision(device="cuda", weights="float32", compute="bfloat16")


def config(
    method: Method = SFT,
    training: dict[str, Any] | None = None,
    *,
    precision: Precision = CPU,
    adapts: bool = False,
    schedule: Schedule | None = None,
) -> Any:
    pytest.importorskip("trl")
    spec = StageSpec.model_validate({"task_type": method.label.lower(), "training": training or {}})
    return config_for(
        method, spec, precision=precision, adapts=adapts, folder="somewhere", schedule=schedule or Schedule()
    )


def test_our_names_reach_trl_under_its_own() -> None:
    training = {
        "steps": 30,
        "batch_size": 4,
        "learning_rate": "1.41e-5",
        "max_seq_length": 512,
        "gradient_accumulation_steps": 2,
        "max_grad_norm": 0.5,
        "seed": 7,
        "num_train_epochs": 2,
    }
    made = config(SFT, training)
    assert (made.max_steps, made.per_device_train_batch_size, made.max_length) == (30, 4, 512)
    assert (made.learning_rate, made.gradient_accumulation_steps, made.max_grad_norm) == (1.41e-5, 2, 0.5)
    assert (made.seed, made.num_train_epochs) == (7, 2)


@pytest.mark.parametrize("method", [SFT, DPO], ids=["sft", "dpo"])
def test_every_name_of_the_tables_is_one_of_trl_and_of_ours(method: Method) -> None:
    trl = pytest.importorskip("trl")
    theirs = {field.name for field in dataclasses.fields(getattr(trl, method.config))}
    assert set(method.names.values()) <= theirs
    assert set(method.names) <= set(Training.model_fields)
    assert OURS | set(REFUSED) <= theirs | {"no_cuda"}


@pytest.mark.parametrize("method", [SFT, DPO, REWARD, GRPO], ids=lambda method: method.label)
def test_every_name_of_ours_that_the_method_has_an_argument_for_reaches_it(method: Method) -> None:
    arguments = arguments_of(method.label.lower())
    same = {**{name: name for name in Training.model_fields}, **SAME}
    elsewhere = {ours for ours, theirs in same.items() if theirs in OURS or theirs in REFUSED}
    meant = {ours: theirs for ours, theirs in same.items() if theirs in arguments and ours not in elsewhere}
    assert method.names == meant


def test_grpo_is_given_the_weight_of_the_entropy_bonus() -> None:
    assert config(GRPO, {"entropy_coef": 0.01, "batch_size": 8}).entropy_coef == 0.01


def test_trl_s_own_arguments_pass_through() -> None:
    made = config(DPO, {"beta": 0.3, "loss_type": ["ipo"], "warmup_steps": 5})
    assert (made.beta, made.loss_type, made.warmup_steps) == (0.3, ["ipo"], 5)


def test_stages_of_several_methods_share_one_training() -> None:
    pytest.importorskip("trl")
    shared = "  model: {source: {identifier: m}}\n  training: {beta: 0.3, packing: true, steps: 7}\n"
    stages = "  stages:\n" + "".join(
        f"  - {{name: {name}, taskType: {name}, data: {{url: d, split: s}}}}\n" for name in ("sft", "dpo")
    )
    sft, dpo = (
        config_for(method, stage.spec, precision=CPU, adapts=False, folder="somewhere", schedule=Schedule())
        for method, stage in zip((SFT, DPO), load(shared + stages).stages, strict=True)
    )
    assert (sft.max_steps, sft.packing, hasattr(sft, "beta")) == (7, True, False)
    assert (dpo.max_steps, dpo.beta) == (7, 0.3)


def test_extra_goes_to_the_config_unchecked_and_what_trl_does_not_know_is_an_error() -> None:
    assert config(SFT, {"extra": {"neftune_noise_alpha": 5}}).neftune_noise_alpha == 5
    with pytest.raises(ExecutionError, match=r"SFTConfig refuses training: .*'neftune_alpha'"):
        config(SFT, {"extra": {"neftune_alpha": 5}})


def test_the_device_decides_on_memory_and_precision() -> None:
    cpu, gpu = config(), config(precision=dataclasses.replace(GPU, device="cpu"))
    assert (cpu.bf16, cpu.fp16, cpu.use_cpu, cpu.gradient_checkpointing) == (False, False, True, False)
    assert (gpu.bf16, gpu.fp16) == (True, False)
    assert config(training={"gradient_checkpointing": True}).gradient_checkpointing


def test_an_adapter_learns_faster_by_default() -> None:
    assert config(adapts=True).learning_rate == 2e-4
    assert config(adapts=True, training={"learning_rate": 1e-3}).learning_rate == 1e-3
    assert config().learning_rate == 2e-5
    assert config(DPO, adapts=True).learning_rate == 1e-5


def test_nothing_leaves_the_machine_or_draws_bars_by_default() -> None:
    made = config()
    assert (made.report_to, made.disable_tqdm, made.push_to_hub) == ([], True, False)


@pytest.mark.parametrize(
    ("schedule", "strategy"),
    [(Schedule(), "no"), (Schedule(seconds=600), "no"), (Schedule(steps=5), "steps"), (Schedule(epochs=True), "epoch")],
)
def test_the_trainer_saves_by_steps_and_epochs_and_we_by_time(schedule: Schedule, strategy: str) -> None:
    made = config(schedule=schedule)
    assert made.save_strategy == strategy
    assert schedule.steps is None or made.save_steps == schedule.steps


@pytest.mark.parametrize(
    ("training", "advice"),
    [
        ({"eval_strategy": "steps"}, "evaluate"),
        ({"push_to_hub": True}, "output"),
        ({"model_init_kwargs": {"dtype": "float16"}}, "model: {transformers"),
        ({"save_strategy": "best"}, "evaluate"),
    ],
)
def test_what_makes_no_sense_in_a_stage_is_an_error_before_it_is_accepted(
    training: dict[str, Any], advice: str
) -> None:
    reason = missing_reason("sft", {"training": training})
    assert reason is not None
    assert advice in reason


def test_the_silent_values_of_such_arguments_are_fine() -> None:
    assert missing_reason("sft", {"training": {"eval_strategy": "no", "push_to_hub": False}}) is None
