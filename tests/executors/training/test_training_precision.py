from __future__ import annotations

from typing import Any

import pytest

from mloc_tasks.executors.training.precision import Precision, precision_of
from mloc_tasks.spec import StageSpec

SOURCE = {"source": {"identifier": "a/b"}}


def decided(*, lora: bool = False, cuda: bool = True, half: bool = True, **spec: Any) -> tuple[Precision, list[str]]:
    said: list[str] = []
    stage = StageSpec.model_validate({"task_type": "sft", "model": SOURCE, **spec})
    return precision_of(stage, lora=lora, cuda=cuda, half=half, log=said.append), said


@pytest.mark.parametrize(
    ("cuda", "half", "compute"),
    [(True, True, "bfloat16"), (True, False, "float16"), (False, True, "bfloat16"), (False, False, "float32")],
)
def test_without_a_word_it_is_what_the_device_computes_fastest(cuda: bool, half: bool, compute: str) -> None:
    precision, said = decided(cuda=cuda, half=half)
    assert (precision.device, precision.compute) == ("cuda" if cuda else "cpu", compute)
    assert said == []


def test_trained_weights_stay_in_32_bits_and_frozen_ones_need_not() -> None:
    assert decided()[0].weights == "float32"
    assert decided(lora=True)[0].weights == "bfloat16"
    assert decided(lora=True, cuda=False, half=False)[0].weights == "float32"


def test_the_seeds_fp16_is_float16_on_a_gpu() -> None:
    precision, said = decided(model={**SOURCE, "config": {"fp16": True}})
    assert precision.compute == "float16"
    assert said == []


@pytest.mark.parametrize(("half", "compute"), [(True, "bfloat16"), (False, "float32")])
def test_fp16_on_a_cpu_is_what_it_computes_instead_and_said_so(half: bool, compute: str) -> None:
    precision, said = decided(model={**SOURCE, "config": {"fp16": True}}, cuda=False, half=half)
    assert precision.compute == compute
    assert said == [f"this CPU does not compute in float16: training in {compute}"]


def test_training_says_it_more_precisely_than_the_model() -> None:
    model = {**SOURCE, "config": {"fp16": True}}
    assert decided(model=model, training={"bf16": True})[0].compute == "bfloat16"
    assert decided(model=model, training={"bf16": False, "fp16": False})[0].compute == "float32"


def test_what_goes_to_from_pretrained_decides_on_the_weights() -> None:
    assert decided(model={**SOURCE, "transformers": {"dtype": "bfloat16"}})[0].weights == "bfloat16"
    assert decided(model={**SOURCE, "transformers": {"torch_dtype": "float32"}}, lora=True)[0].weights == "float32"


def test_a_stage_kept_to_the_cpu_is_trained_there() -> None:
    assert decided(enforce_cpu=True, half=False)[0] == Precision(device="cpu", weights="float32", compute="float32")
