"""What a training measures at each step: into a file, the run's events, log lines and, when asked, TensorBoard."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mloc_tasks.errors import ExecutionError
from mloc_tasks.executors.training.given import given_arguments

if TYPE_CHECKING:
    from mloc_tasks.executors.base import Task

METRICS_FILE = "metrics.jsonl"
TENSORBOARD = "tensorboard"
FOLLOWED_REPORTERS = frozenset({"tensorboard", "all"})
LINE_EVERY_SEC = 1.0
"""Time between log lines where `training.logging_steps` says nothing; the first and the last step always have one."""

TOTALS = frozenset({"num_tokens"})
"""Values that count from the start of the training, which a trainer that goes on from a checkpoint has forgotten."""


class MetricsLog:
    """Writes one line a step, `{"step": 1, "loss": ...}`, and reports the same.

    A training that goes on from a checkpoint begins with the lines up to that step, so that no step stands there twice
    and none is missing. Use it as a context manager.

    Args:
        label: of log lines: `{label} Step 1/50: loss=1.2345`.
        total: steps altogether, once `begin` has not said another number.
        shown: the values that log lines show; those that a step lacks are left out.
        resumed: the metrics file of the checkpoint that the training goes on from; step: steps behind that.
    """

    def __init__(
        self,
        task: Task,
        out_dir: Path,
        *,
        label: str,
        shown: Sequence[str],
        total: int | None = None,
        resumed: Path | None = None,
        step: int = 0,
    ) -> None:
        self.path = out_dir / METRICS_FILE
        self.total = total
        self._report = task.report
        self._label = label
        self._shown = shown
        self._every_steps: float | None = given_arguments(task.spec).get("logging_steps")
        self._next_line = 0.0
        self._last: dict[str, float] = {}
        self._last_step: int | None = None
        self._losses = _Mean()
        self._not_finite: set[str] = set()
        if unknown := [name for name in reporters(task) if name not in FOLLOWED_REPORTERS]:
            self._report.log(
                f"training.report_to: {', '.join(unknown)} gets nothing; {METRICS_FILE} holds all figures, and "
                "report_to: tensorboard leaves TensorBoard's files",
                level="warning",
            )
        self._board = _tensorboard(out_dir / TENSORBOARD) if wants_tensorboard(task) else None
        self._file = self.path.open("w", encoding="utf-8")
        for line in _lines(resumed, before=step):
            self._keep(line.pop("step"), line)
        self._base = {name: self._last.get(name, 0.0) for name in TOTALS}

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        if self._board is not None:
            self._board.close()

    def record(self, step: int, values: Mapping[str, float], *, done: int | None = None) -> None:
        """Keep and report what step `step` measured; `done` steps are over by then (default `step`)."""
        counted = {name: float(value) + (self._base[name] if name in TOTALS else 0.0) for name, value in values.items()}
        self._keep(step, counted)
        finite = {name: value for name, value in counted.items() if math.isfinite(value)}
        if fresh := counted.keys() - finite.keys() - self._not_finite:
            self._not_finite |= fresh
            names = ", ".join(sorted(fresh))
            self._report.log(f"step {step}: {names} is not a finite number; lower the learning rate", level="warning")
        self._report.metrics(step, finite)
        over = step if done is None else done
        self._report.progress(over, self.total)
        if self._line_is_due(over):
            self._report.log(self._line(step, counted))

    def summary(self) -> dict[str, float]:
        """The last step's values, and `train_loss`: the mean over all steps, whoever trained them."""
        found = {name: value for name, value in self._last.items() if math.isfinite(value)}
        if self._losses.count:
            found["train_loss"] = self._losses.value
        return found

    def _keep(self, step: int, values: Mapping[str, float]) -> None:
        written = {name: value if math.isfinite(value) else None for name, value in values.items()}
        self._file.write(json.dumps({"step": step, **written}) + "\n")
        self._file.flush()  # a checkpoint takes a copy
        self._last = {**self._last, **values}
        self._last_step = step
        if "loss" in values:
            self._losses.add(values["loss"])
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(f"train/{name}", value, step)

    def _line_is_due(self, done: int) -> bool:
        if done == self.total:
            return True
        if self._every_steps is not None:
            every = self._every_steps if self._every_steps >= 1 else self._every_steps * (self.total or 1)
            return done % max(round(every), 1) == 0
        now = time.monotonic()
        if now < self._next_line:
            return False
        self._next_line = now + LINE_EVERY_SEC
        return True

    def _line(self, step: int, values: Mapping[str, float]) -> str:
        of = "" if self.total is None else f"/{self.total}"
        shown = ", ".join(f"{name}={_figure(values[name])}" for name in self._shown if name in values)
        return f"{self._label} Step {step}{of}: {shown}"


def wants_tensorboard(task: Task) -> bool:
    """Whether `training.report_to` names TensorBoard (`all` does)."""
    return bool(FOLLOWED_REPORTERS & set(reporters(task)))


def reporters(task: Task) -> list[str]:
    """What `training.report_to` names; nothing by default."""
    given = given_arguments(task.spec).get("report_to")
    named = [given] if isinstance(given, str) else list(given or ())
    return [name for name in named if name != "none"]


class _Mean:
    """A mean that comes out the same to the last bit however often the adding was interrupted."""

    def __init__(self) -> None:
        self._sum = 0.0
        self.count = 0

    def add(self, value: float) -> None:
        self._sum += value
        self.count += 1

    @property
    def value(self) -> float:
        return self._sum / self.count


def _lines(path: Path | None, *, before: int) -> Iterator[dict[str, Any]]:
    """The lines of a metrics file up to step `before`, numbers that were not finite as NaN."""
    if path is None or not path.exists():
        return
    with path.open(encoding="utf-8") as lines:
        for text in lines:
            line = json.loads(text)
            if line["step"] <= before:
                yield {name: math.nan if value is None else value for name, value in line.items()}


def _tensorboard(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ExecutionError(
            "training.report_to: tensorboard needs the Python package tensorboard, not installed on this worker",
            hint="pip install tensorboard, or leave report_to out: metrics.jsonl holds the same numbers",
        ) from error
    return SummaryWriter(str(folder))


def _figure(value: float) -> str:
    """Four places after the point, or as many digits where the number is small."""
    return f"{value:.4f}" if abs(value) >= 0.001 or value == 0 else f"{value:.3g}"
