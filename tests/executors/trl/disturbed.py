"""Trainings that are killed in the middle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mloc_tasks.executors.base import Task
from mloc_tasks.executors.trl.executor import TrlExecutor
from tests.executors.training.training_tasks import heard


class Killed(BaseException):
    """Stands for the signal that ends an attempt."""


def run(executor: type[TrlExecutor], task: Task, out_dir: Path) -> dict[str, Any]:
    out_dir.mkdir()
    return executor().run(task, out_dir)


def kill(executor: type[TrlExecutor], task: Task, *, at: int, out_dir: Path) -> None:
    """Run `task` until it has measured step `at`, and no further."""
    report = heard(task)
    keep = report.metrics

    def metrics(step: int, values: dict[str, float]) -> None:
        keep(step, values)
        if step == at:
            raise Killed

    report.metrics = metrics  # type: ignore[method-assign]
    with pytest.raises(Killed):
        run(executor, task, out_dir)


def newest(task: Task) -> Path:
    assert task.checkpoint_dir is not None
    return max(task.checkpoint_dir.glob("step-*"))
