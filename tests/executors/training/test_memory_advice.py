from __future__ import annotations

from typing import Any

import pytest

from mloc_tasks.errors import ExecutionError
from mloc_tasks.executors.training.memory import advice, memory_advice
from mloc_tasks.executors.training.precision import Precision
from mloc_tasks.spec import StageSpec

torch = pytest.importorskip("torch")

CPU = Precision(device="cpu", weights="float32", compute="float32")
GPU = Precision(device="cuda", weights="float32", compute="bfloat16")
GPU_IN_FULL = Precision(device="cuda", weights="float32", compute="float32")


def stage(**spec: Any) -> StageSpec:
    return StageSpec.model_validate({"task_type": "sft", "model": {"source": {"identifier": "a/b"}}, **spec})


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore"),
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried ..."),
    ],
    ids=["gpu", "python", "cpu"],
)
def test_running_out_of_memory_says_what_to_change(error: Exception) -> None:
    with (
        pytest.raises(ExecutionError, match="out of memory while training") as caught,
        memory_advice(stage(training={"batch_size": 8}), batch_size=8),
    ):
        raise error
    assert not caught.value.retryable
    hint = str(caught.value.hint)
    for way_out in ("training.batch_size (it was 8)", "gradient_accumulation_steps", "lora", "max_seq_length"):
        assert way_out in hint


def test_other_errors_pass_unchanged() -> None:
    with pytest.raises(RuntimeError, match="shapes"), memory_advice(stage(), batch_size=1):
        raise RuntimeError("shapes do not fit")


def test_advice_names_only_what_is_left_to_do() -> None:
    training = {"gradient_checkpointing": True, "max_seq_length": 512}
    assert advice(stage(lora={}, training=training), 1, GPU) == "lower training.max_seq_length (it was 512)"


def test_what_is_the_default_on_a_gpu_is_no_advice_there() -> None:
    assert "gradient_checkpointing" in advice(stage(), 1, CPU)
    assert "gradient_checkpointing" not in advice(stage(), 1, GPU)
    assert "gradient_checkpointing" in advice(stage(task_type="ppo"), 1, GPU)
    assert "gradient_checkpointing" in advice(stage(training={"gradient_checkpointing": False}), 1, GPU)
    assert "bf16" not in advice(stage(), 1, CPU) + advice(stage(), 1, GPU)
    assert "training.bf16" in advice(stage(), 1, GPU_IN_FULL)


def test_methods_that_generate_are_told_about_their_completions() -> None:
    ppo = advice(stage(task_type="ppo"), 4, CPU)
    assert "training.mini_batch_size (it was 4)" in ppo
    assert "training.batch_size, whose completions" in advice(stage(task_type="ppo"), 1, CPU)
    assert "generation.max_new_tokens" in ppo
    assert "generation.max_new_tokens" not in advice(stage(), 4, CPU)
