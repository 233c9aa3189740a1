"""Training checkpoints on this machine: when they are due, and how they become visible only when complete."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mloc_tasks.executors.base import write_json

if TYPE_CHECKING:
    from mloc_tasks.spec.model.training import Training

CHECKPOINT_EVERY_SEC = 600.0
"""Time between checkpoints where the spec says nothing."""

MAKING = ".making"
ABOUT = "mloc.json"
"""In a checkpoint: what it is a checkpoint of."""

METRICS = "metrics.jsonl"


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """When checkpoints are made. At most one of the fields is set; none: never.

    Attributes:
        seconds: between two.
        steps: between two; below 1 a share of all steps.
        epochs: after every epoch.
    """

    seconds: float | None = None
    steps: float | None = None
    epochs: bool = False

    @classmethod
    def of(cls, training: Training | None) -> Schedule:
        """What `save_freq`, `save_steps` and `save_strategy` say; by default it goes by time."""
        arguments: dict[str, Any] = (training and training.model_extra) or {}
        strategy: Literal["no", "steps", "epoch"] | None = arguments.get("save_strategy")
        steps = (training and training.save_freq) or arguments.get("save_steps")
        if strategy == "no":
            return cls()
        if strategy == "epoch":
            return cls(epochs=True)
        if steps is not None or strategy == "steps":
            return cls(steps=steps or 500)  # 500: the default of transformers
        return cls(seconds=CHECKPOINT_EVERY_SEC)


class Clock:
    """Says when a checkpoint by time is due; the time that making one takes does not count."""

    def __init__(self, every_sec: float | None, *, now: Callable[[], float] = time.monotonic) -> None:
        self._every_sec = every_sec
        self._now = now
        self._last = now()

    def due(self) -> bool:
        return self._every_sec is not None and self._now() - self._last >= self._every_sec

    def restart(self) -> None:
        self._last = self._now()


class Checkpoints:
    """Where a training writes its checkpoints, and where they are published.

    Args:
        directory: `task.checkpoint_dir`; None: nobody wants any.
        task_type: goes into each, so that a later stage knows whether it can go on from it.
    """

    def __init__(self, directory: Path | None, *, task_type: str) -> None:
        self._directory = directory
        self._task_type = task_type

    @property
    def wanted(self) -> bool:
        return self._directory is not None

    @property
    def folder(self) -> Path:
        """Where a checkpoint is written before it is published; nobody looks there."""
        if self._directory is None:
            raise ValueError("checkpoints are not wanted")
        return self._directory / MAKING

    def publish(self, made: Path, *, step: int, metrics: Path | None = None) -> Path:
        """Make the complete directory `made`, somewhere below `folder`, visible by one rename; gives its new path.

        Args:
            step: steps that are behind it.
            metrics: the metrics so far, to be kept with it.
        """
        if self._directory is None:
            raise ValueError("checkpoints are not wanted")
        write_json(made / ABOUT, {"task_type": self._task_type, "step": step})
        if metrics is not None and metrics.exists():
            shutil.copyfile(metrics, made / METRICS)
        published = self._directory / f"step-{step:08d}"
        if published.exists():  # the one that this attempt went on from
            shutil.rmtree(made)
        else:
            made.rename(published)
        return published
