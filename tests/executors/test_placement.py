"""Device and precision follow from the spec and the machine."""

from __future__ import annotations

from typing import Any

import pytest

from mloc_tasks.executors.transformers.placement import place
from mloc_tasks.spec import StageSpec


def spec(*, enforce_cpu: bool = False, **model: Any) -> StageSpec:
    document = {
        "task_type": "inference",
        "enforce_cpu": enforce_cpu,
        "model": {"source": {"identifier": "a/b"}} | model,
    }
    return StageSpec.model_validate(document)


@pytest.mark.parametrize(
    ("cuda", "enforce_cpu", "device"), [(True, False, "cuda"), (True, True, "cpu"), (False, False, "cpu")]
)
def test_gpu_is_used_where_there_is_one_unless_forbidden(cuda: bool, enforce_cpu: bool, device: str) -> None:
    assert place(spec(enforce_cpu=enforce_cpu), cuda=cuda).device == device


@pytest.mark.parametrize(
    ("config", "cuda", "dtype"),
    [
        ({}, True, "auto"),
        ({"fp16": True}, True, "float16"),
        ({"fp16": True}, False, "bfloat16"),
        ({"bf16": True}, True, "bfloat16"),
    ],
)
def test_precision(config: dict[str, bool], cuda: bool, dtype: str) -> None:
    assert place(spec(config=config), cuda=cuda).arguments["dtype"] == dtype


def test_arguments_of_the_spec_are_passed_through_and_win() -> None:
    placement = place(
        spec(config={"bf16": True}, transformers={"torch_dtype": "float32", "attn_implementation": "eager"}), cuda=True
    )
    assert dict(placement.arguments) == {"dtype": "float32", "attn_implementation": "eager"}


def test_layers_are_spread_when_asked_and_there_is_something_to_spread_over() -> None:
    assert place(spec(config={"device_map_auto": True}), cuda=True).spread
    assert not place(spec(config={"device_map_auto": True}), cuda=False).spread
