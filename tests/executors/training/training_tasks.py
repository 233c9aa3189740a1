"""Tasks that train a tiny model, and what a reporter heard of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mloc_tasks.executors.base import Task
from mloc_tasks.spec import StageSpec
from tests.executors.executor_tasks import Rows


@dataclass
class Heard:
    """A Reporter that keeps what it is told."""

    steps: list[tuple[int, int | None]] = field(default_factory=list)
    messages: list[tuple[str, str]] = field(default_factory=list)
    measured: list[tuple[int, dict[str, float]]] = field(default_factory=list)

    def progress(self, done: int, total: int | None = None) -> None:
        self.steps.append((done, total))

    def log(self, message: str, *, level: str = "info") -> None:
        self.messages.append((level, message))

    def metrics(self, step: int, values: dict[str, float]) -> None:
        self.measured.append((step, values))

    def lines(self, level: str = "info") -> list[str]:
        return [message for said, message in self.messages if said == level]


def training_task(
    model: Path | str,
    rows: Sequence[dict[str, Any]],
    *,
    task_type: str = "sft",
    training: dict[str, Any] | None = None,
    checkpoint_dir: Path | None = None,
    resume_from: Path | None = None,
    cache_dir: Path | None = None,
    wanted: Sequence[str] = (),
    adapters: Sequence[dict[str, str]] = (),
    **more: Any,
) -> Task:
    """A training stage's task as an attempt makes it; `more` are further keys of the spec."""
    spec = {
        "task_type": task_type,
        "model": {"source": {"type": "local", "identifier": str(model)}, "adapters": list(adapters)},
        "training": {"batch_size": 2, "steps": 4, "learning_rate": 0.01, **(training or {})},
        **more,
    }
    if checkpoint_dir is not None:
        checkpoint_dir.mkdir(parents=True, exist_ok=True)
    return Task(
        {"apiVersion": "mloc/v1", "kind": "Test", "metadata": {"name": "test"}, "spec": spec},
        spec=StageSpec.model_validate(spec),
        report=Heard(),
        inputs=Rows(rows),  # type: ignore[arg-type]
        checkpoint_dir=checkpoint_dir,
        resume_from=resume_from,
        cache_dir=cache_dir,
        wanted=wanted,
    )


def heard(task: Task) -> Heard:
    assert isinstance(task.report, Heard)
    return task.report


QUESTIONS = [
    {"prompt": f"What is {a} and {b}?", "completion": f"{a} and {b} is {a + b}."} for a in range(4) for b in range(4)
]
PREFERENCES = [
    {"prompt": f"Say {word}.", "chosen": f"{word}!", "rejected": "No."} for word in ("red", "blue", "green", "one")
] * 3
