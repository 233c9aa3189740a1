"""A bar for each stage of a run that goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, Task, TaskID, TextColumn
from rich.text import Text

from scheduler.cli.follow import stage_words
from scheduler.cli.states import MARKS, STYLES

if TYPE_CHECKING:
    from mloc_tasks.ledger import StageRecord
    from scheduler.runs import RunStatus

BAR_WIDTH = 28
LEAST_ROWS = 5
ROWS_LEFT_FREE = 4
URGENCY = {"running": 0, "failed": 1, "queued": 2}


class _MarkColumn(SpinnerColumn):
    """The state's mark; a spinner while the stage runs."""

    def render(self, task: Task) -> Text:
        state = task.fields["state"]
        if state == "running":
            spinner = super().render(task)
            return spinner if isinstance(spinner, Text) else Text(str(spinner))
        return Text(MARKS[state], style=STYLES[state])


class Bars:
    """Live progress bars; `progress` is the context in which they live."""

    def __init__(self, console: Console) -> None:
        self.progress = Progress(
            _MarkColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=BAR_WIDTH),
            TextColumn("{task.fields[words]}", style="dim"),
            console=console,
            refresh_per_second=8,
        )
        self._bars: dict[str, TaskID] = {}

    def show(self, status: RunStatus) -> None:
        begun = status.run.started is not None
        shown = self._fitting(status.stages)
        for stage in status.stages:
            bar = self._bars.get(stage.name)
            if bar is None:
                bar = self._bars[stage.name] = self.progress.add_task(stage.name, state="queued", words="", total=1)
            total, done = _length(stage)
            self.progress.update(
                bar,
                total=total,
                completed=done,
                state=str(stage.state),
                words=_words(stage, begun=begun),
                visible=stage.name in shown,
            )

    def _fitting(self, stages: tuple[StageRecord, ...]) -> set[str]:
        """The stages whose bars fit on the screen: what runs or failed, then what comes next, then what is over."""
        room = max(LEAST_ROWS, self.progress.console.height - ROWS_LEFT_FREE)
        urgent = sorted(stages, key=lambda stage: URGENCY.get(stage.state, len(URGENCY)))
        return {stage.name for stage in urgent[:room]}


def _length(stage: StageRecord) -> tuple[float | None, float]:
    """Total and completed; a total of None is a bar that only moves."""
    if stage.state.is_success:
        return 1, 1
    if stage.state.is_final or stage.started is None:
        return 1, 0
    if stage.items_total:
        return stage.items_total, stage.items_done
    if stage.shards is not None and stage.shards > 1:
        return stage.shards, stage.shards_done
    return None, 0


def _words(stage: StageRecord, *, begun: bool) -> str:
    if stage.started is not None:
        words = stage_words(stage)
        return "  ".join(words if stage.state.is_success or not stage.state.is_final else [str(stage.state), *words])
    if stage.state.is_final:
        return str(stage.state)
    return "queued" if begun or stage.depends_on else "the worker starts"
