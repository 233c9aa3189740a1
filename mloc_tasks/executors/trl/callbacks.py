"""What happens beside a step of transformers' trainer: metrics are kept, checkpoints made and published."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from mloc_tasks.errors import ExecutionError
from mloc_tasks.executors.training.checkpoints import Checkpoints, Clock, Schedule
from mloc_tasks.executors.training.metrics import MetricsLog
from mloc_tasks.executors.training.rank import barrier, is_first, world_size

_AT_THE_END = "train_runtime"
"""In the numbers of the whole training, which the trainer logs like a step's."""


class Metrics(TrainerCallback):
    """Gives each step's numbers to `log`; only in the first process."""

    def __init__(self, log: MetricsLog) -> None:
        self._log = log

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._log.total = state.max_steps

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        state.log_history.clear()  # it would grow with each checkpoint; `log` has it all
        if logs is None or _AT_THE_END in logs:
            return
        numbers = {name: float(value) for name, value in logs.items() if isinstance(value, int | float)}
        self._log.record(state.global_step, numbers)


class Publishing(TrainerCallback):
    """Has a checkpoint made when it is due, and publishes it; in every process."""

    def __init__(self, checkpoints: Checkpoints, schedule: Schedule, *, metrics: Path) -> None:
        self._checkpoints = checkpoints
        self._clock = Clock(schedule.seconds)
        self._by_time = schedule.seconds is not None
        self._metrics = metrics

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step >= state.max_steps:
            raise ExecutionError(
                f"the checkpoint has {state.global_step} steps behind it, and the stage asks for {state.max_steps}",
                hint="raise training.steps or num_train_epochs, or load it with type: model to begin anew",
            )
        self._clock.restart()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        if self._by_time and self._is_due():
            control.should_save = True
        return self._not_at_the_end(state, control)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        return self._not_at_the_end(state, control)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        barrier()  # each process writes a part of it
        if is_first():
            made = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            self._checkpoints.publish(made, step=state.global_step, metrics=self._metrics)
        self._clock.restart()

    def _not_at_the_end(self, state: Any, control: Any) -> Any:
        if state.global_step >= state.max_steps:
            control.should_save = False  # the trained model comes next
        return control

    def _is_due(self) -> bool:
        """What the first process's clock says: all of them must make the checkpoint at the same step."""
        due = [self._clock.due()]
        if world_size() > 1:
            distributed: Any = importlib.import_module("torch.distributed")
            distributed.broadcast_object_list(due)
        return due[0]
