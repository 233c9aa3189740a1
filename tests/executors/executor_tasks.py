"""Tasks for executor tests, made from the real language, with rows in memory and a reporter that remembers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from mloc_tasks.executors import Item, Task
from mloc_tasks.spec import StageSpec


@dataclass
class Rows:
    """An InputSlice over a list."""

    rows: Sequence[Item]
    start: int = 0

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Item]:
        return iter(self.rows)


@dataclass
class Recorder:
    """A Reporter that keeps what it is told."""

    steps: list[tuple[int, int | None]] = field(default_factory=list)
    messages: list[tuple[str, str]] = field(default_factory=list)

    def progress(self, done: int, total: int | None = None) -> None:
        self.steps.append((done, total))

    def log(self, message: str, *, level: str = "info") -> None:
        self.messages.append((level, message))

    def metrics(self, step: int, values: dict[str, float]) -> None:
        raise AssertionError("inference reports no metrics")


def task_of(spec: dict[str, Any], rows: Sequence[Item] | None = None, *, start: int = 0, parts: bool = False) -> Task:
    """A task as an attempt makes it; `spec` has snake_case keys."""
    inputs = None if rows is None else Rows(rows, start)
    return Task(
        {"apiVersion": "mloc/v1", "kind": "Test", "metadata": {"name": "test"}, "spec": spec},
        spec=StageSpec.model_validate(spec),
        report=Recorder(),
        inputs=inputs,
        parts=parts,
    )
