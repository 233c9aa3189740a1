"""Training that runs out of memory: an error that says what to do about it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mloc_tasks.errors import ExecutionError
from mloc_tasks.executors.training.given import given_arguments
from mloc_tasks.executors.training.lora import uses_lora
from mloc_tasks.executors.training.precision import Precision, precision_here

if TYPE_CHECKING:
    from mloc_tasks.spec import StageSpec

GENERATING = frozenset({"ppo", "grpo"})
_CPU_ALLOCATOR = ("can't allocate memory", "not enough memory")  # what torch says of the machine's memory


@contextmanager
def memory_advice(spec: StageSpec, *, batch_size: int) -> Iterator[None]:
    """Within it, an out-of-memory error becomes an ExecutionError with advice that fits the stage.

    Not retryable: the same stage would end the same way.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        first = str(error).strip().split("\n")[0] or "no memory left"
        precision = precision_here(spec, lora=uses_lora(spec))
        hint = advice(spec, batch_size, precision)
        raise ExecutionError(f"out of memory while training: {first}", hint=hint) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the GPU or the machine had no memory left."""
    import torch

    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _CPU_ALLOCATOR)


def advice(spec: StageSpec, batch_size: int, precision: Precision) -> str:
    """What to change in the spec, the cheapest first.

    Args:
        batch_size: rows that went through the model at once.
        precision: of the training.
    """
    training = spec.training
    arguments = given_arguments(spec)
    on_gpu, ppo = precision.device == "cuda", spec.task_type == "ppo"
    steps = []
    if batch_size > 1:
        name = "mini_batch_size" if ppo else "batch_size"
        steps.append(f"lower training.{name} (it was {batch_size}) and raise gradient_accumulation_steps as much")
    if ppo:
        steps.append("lower training.batch_size, whose completions are drawn side by side")
    if not arguments.get("gradient_checkpointing", on_gpu and not ppo):  # on a GPU TRL's methods have it by default
        steps.append("set training.gradient_checkpointing: true")
    if spec.task_type in GENERATING:
        steps.append("lower generation.max_new_tokens")
    length = None if training is None else training.max_seq_length or arguments.get("max_length")
    steps.append(f"lower training.max_seq_length{f' (it was {length})' if length else ''}")
    if not uses_lora(spec):
        steps.append("train an adapter: lora: {r: 16}")
    if on_gpu and not precision.mixed:
        steps.append("set training.bf16: true")
    return "; ".join(steps)
