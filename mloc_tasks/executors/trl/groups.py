"""How many completions GRPO generates at once, and whether they make whole groups."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

BATCH_SIZE = 8  # of transformers
NUM_GENERATIONS = 8  # of TRL


@dataclass(frozen=True, kw_only=True)
class Groups:
    """The completions that are generated together, of all processes: groups, each of one prompt.

    Attributes:
        batch_size: completions that go through the model at once in a process.
        batches: of them one generation makes (`gradient_accumulation_steps`, or `steps_per_generation`).
        size: completions of a group (`num_generations`).
        total: completions of a generation, where `generation_batch_size` gives it.
    """

    batch_size: int = BATCH_SIZE
    batches: int = 1
    processes: int = 1
    size: int = NUM_GENERATIONS
    total: int | None = None

    @property
    def completions(self) -> int:
        """In one generation."""
        return self.total or self.batch_size * self.batches * self.processes

    @property
    def prompts(self) -> int:
        """In one generation."""
        return self.completions // self.size

    def problem(self) -> str | None:
        """Why GRPO cannot train on such groups, with what to write instead; None when it can."""
        if self.size < 2:
            return f"training.num_generations is {self.size}: grpo compares completions of one prompt, at least 2"
        if self.completions % self.size == 0:
            return None
        made = f"generation_batch_size: {self.total}"
        if self.total is None:
            made = f"batch_size {self.batch_size} x {self.batches} batches x {self.processes} processes"
        fitting = [str(size) for size in range(2, min(self.completions, 64) + 1) if self.completions % size == 0]
        lower = f"num_generations to {' or '.join(fitting[-3:])}, or " if fitting else ""
        return (
            f"training.num_generations: {self.size} does not divide the {self.completions} completions of a "
            f"generation ({made}); set {lower}the batch to a multiple of {self.size}"
        )


def groups_of(training: Mapping[str, Any], *, processes: int) -> Groups | None:
    """What `training`, with snake_case keys, asks for; None while a reference stands where a number must be."""
    batch_size = training.get("batch_size") or training.get("per_device_train_batch_size")
    batches = training.get("steps_per_generation") or training.get("gradient_accumulation_steps")
    found = {
        "batch_size": batch_size or BATCH_SIZE,
        "batches": batches or 1,
        "size": training.get("num_generations") or NUM_GENERATIONS,
        "total": training.get("generation_batch_size"),
    }
    try:
        numbers = {name: int(value) for name, value in found.items() if value is not None}
    except (TypeError, ValueError):
        return None
    return Groups(processes=processes, **numbers)


def processes_of(document: Mapping[str, Any]) -> int | None:
    """Processes of a stage's training by its document; None where only the worker knows."""
    training = document.get("training") or {}
    count = training.get("nproc_per_node")
    if count is not None:
        return count if isinstance(count, int) else None
    gpu = ((document.get("resources") or {}).get("hardware") or {}).get("gpu") or {}
    several = isinstance(gpu, Mapping) and gpu.get("count", 1) not in (0, 1)
    return None if several and training.get("allow_multi_gpu") is not False else 1
