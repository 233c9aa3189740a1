"""What the executors of all training methods have in common."""

from __future__ import annotations

import importlib.util
import sys
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from mloc_tasks.cpus import usable_cpus
from mloc_tasks.errors import ConfigError
from mloc_tasks.executors.base import Executor, Task
from mloc_tasks.executors.training.curves import draw_curves
from mloc_tasks.executors.training.launch import asks_for, launch_of, unsupported, visible_gpus
from mloc_tasks.executors.training.processes import run_processes
from mloc_tasks.executors.training.surroundings import settle_alone
from mloc_tasks.host.interpreters import variable


class TrainingExecutor(Executor):
    """Base of the executors that train a model: its `train` is one process's part of a training.

    A subclass gives `name`, `family` and `train`. What is written and reported once for all processes is written where
    `rank.is_first()`; the first process's result is the stage's, and its `task.report` alone is heard.

    Class attributes:
        requires: the modules that must be installed, by the names that they are imported by.
    """

    reusable: ClassVar[bool] = False
    needs_rows: ClassVar[bool] = True
    keeps_checkpoints: ClassVar[bool] = True
    artifact_fields: ClassVar[Mapping[str, str]] = {
        "metrics_url": "metrics.jsonl",
        "final_model_url": "final_model",
        "final_lora_url": "final_lora",
    }
    result_fields: ClassVar[frozenset[str] | None] = frozenset({"ok", "model", "steps", "metrics", "train_seconds"})
    requires: ClassVar[tuple[str, ...]] = ("torch", "transformers", "trl", "peft")

    def run(self, task: Task, out_dir: Path) -> dict[str, Any]:
        self._check_installed()
        launch = launch_of(task.spec, gpus=visible_gpus(), cpus=len(usable_cpus()))
        if not launch.gpus and asks_for(task.spec, "fsdp"):
            task.report.log("training.fsdp: without GPUs every process holds the whole model", level="warning")
        if launch.grouped:
            target = f"{type(self).__module__}:{type(self).__qualname__}"
            result = run_processes(target, task, out_dir, launch)
        else:
            settle_alone(launch)
            result = self.train(task, out_dir)
        what = f"{task.spec.task_type} of {result.get('model')}"
        draw_curves(out_dir, title=f"{task.stage}: {what}" if task.stage else what, log=task.report.log)
        return result

    @abstractmethod
    def train(self, task: Task, out_dir: Path) -> dict[str, Any]:
        """Train, as one of `rank.world_size()` processes that call this at the same time, each with a task of its own.

        Everything is the same in all of them but `task.report`, which only the first one's reader hears. Returns what
        `responses.json` holds; what the others return is not looked at. Raises as `run`: the first error of any of
        them is the attempt's, and the others are ended.
        """

    @classmethod
    def unsupported(cls, document: Mapping[str, Any]) -> str | None:
        return unsupported(document)

    @classmethod
    def _check_installed(cls) -> None:
        missing = [name for name in cls.requires if importlib.util.find_spec(name) is None]
        if missing:
            other = variable(cls.family or cls.name)
            raise ConfigError(
                f"training needs {' and '.join(missing)}, not installed under {sys.executable}",
                hint=f"pip install 'mloc[ppo]' there, or name a Python that has it all: {other}",
            )
