"""A run followed to its end: live bars on a terminal, a line for each change elsewhere. Both go to stderr."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Protocol

from mloc_tasks.spec.task_types import BUILT_IN
from scheduler.cli.wording import counted, duration, elapsed

if TYPE_CHECKING:
    from rich.console import Console

    from mloc_tasks.ledger import StageRecord
    from scheduler.runs import Run, RunStatus

FIRST_PAUSE_SEC = 0.02  # an echo is over in less
LONGEST_PAUSE_SEC = 0.2


class View(Protocol):
    """What shows a run while it goes on."""

    def show(self, status: RunStatus) -> None: ...


def follow(run: Run, *, check: Callable[[], None]) -> RunStatus:
    """Show the run until it ends; returns its last status. `check` is called all along and may raise."""
    from scheduler.cli.terminal import notices

    console = notices()
    status = run.status()
    console.print(f"Run {run.id}  {status.run.name}  ({counted(len(status.stages), 'stage')})", soft_wrap=True)
    view, live = _view(console)
    pause = FIRST_PAUSE_SEC
    with live:
        while True:
            view.show(status)
            if status.state.is_final:
                return status
            check()
            time.sleep(pause)
            pause = min(pause * 1.3, LONGEST_PAUSE_SEC)
            status = run.status()


def _view(console: Console) -> tuple[View, AbstractContextManager[object]]:
    if console.is_terminal and not console.is_dumb_terminal:
        from scheduler.cli.bars import Bars

        bars = Bars(console)
        return bars, bars.progress
    return Lines(console), nullcontext()


class Lines:
    """A line for each stage that starts or ends."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._states: dict[str, str] = {}

    def show(self, status: RunStatus) -> None:
        for stage in status.stages:
            if stage.state != self._states.get(stage.name, "queued"):
                self._states[stage.name] = stage.state
                words = stage_words(stage) if stage.state.is_final else []
                self._console.print("  ".join((f"{stage.name}: {stage.state}", *words)), soft_wrap=True)


def stage_words(stage: StageRecord) -> list[str]:
    """How far a stage is: `5/8 items` (of a training: `steps`), `2/4 shards`, `3.2s`; what is not known is left out."""
    words = []
    known = BUILT_IN.get(stage.task_type)
    unit = "step" if known is not None and known.trains else "item"
    if stage.items_total is not None:
        words.append(f"{stage.items_done:,}/{stage.items_total:,} {unit}s")
    elif stage.items_done:
        words.append(counted(stage.items_done, unit))
    if stage.shards is not None and stage.shards > 1:
        words.append(f"{stage.shards_done:,}/{stage.shards:,} shards")
    if stage.shards_failed and stage.scattered:
        words.append(f"{stage.shards_failed:,} failed")
    took = elapsed(stage.started, stage.ended)
    if took is not None:
        words.append(duration(took))
    return words
