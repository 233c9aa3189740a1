"""Why a run did not end well: the cause, where it happened, what to do, and the worker's log where that helps."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import mloc_tasks.errors

if TYPE_CHECKING:
    from mloc_tasks.ledger import Failure, StageRecord
    from scheduler.runs import RunStatus

LOG_LINES = 30
_ENTRY = re.compile(r"\[\d{4}-\d\d-\d\d ")  # how Celery begins an entry; a traceback's lines follow without


def print_failures(status: RunStatus, *, log_tail: str = "") -> None:
    """Print to stderr every stage's failure, or why there is none."""
    from scheduler.cli.terminal import clean, notices

    console = notices()
    failures = _failures(status)
    console.print()
    for failure, stage in failures:
        _print_failure(failure, stage)
    if not failures:
        console.print(f"Run {status.run.id} is {status.state}.", soft_wrap=True)
    skipped = [stage.name for stage in status.stages if stage.state == "skipped"]
    if skipped:
        console.print(f"not run because of it: {', '.join(skipped)}", style="dim", soft_wrap=True)
    unexpected = [failure for failure, _ in failures if _is_unexpected(failure)]
    log = next((failure.log for failure in unexpected if failure.log), log_tail if unexpected else "")
    if log:
        console.print("\nfrom the worker's log:", style="dim")
        for line in _telling_lines(clean(log)):
            console.print(f"  {line}", style="dim", soft_wrap=True)


def _failures(status: RunStatus) -> list[tuple[Failure, StageRecord | None]]:
    """Each stage's failure; of a sharded stage that of the shard which failed first, as far as the run knows it."""
    first = status.run.error
    failures: list[tuple[Failure, StageRecord | None]] = [
        (first if first and first.stage == stage.name else stage.error, stage)
        for stage in status.stages
        if stage.error is not None
    ]
    return failures or ([(first, None)] if first is not None else [])


def _print_failure(failure: Failure, stage: StageRecord | None) -> None:
    from scheduler.cli.boundary import show_error

    show_error(f"stage {failure.stage} failed: {failure.message}" if failure.stage else failure.message, failure.hint)
    place = [f"shard {failure.shard}"] if failure.shard else []
    place += [f"attempt {failure.attempt}"] if failure.attempt else []
    place += [f"worker {failure.worker}"] if failure.worker else []
    if stage is not None and stage.scattered and stage.shards_failed:
        place.append(f"{stage.shards_failed:,} of {stage.shards or 0:,} shards failed")
    if place:
        from scheduler.cli.terminal import notices

        notices().print(f"  at: {', '.join(place)}", style="dim", soft_wrap=True)


def _telling_lines(log: str) -> list[str]:
    """The log's errors with their tracebacks; its end where there are none."""
    lines = log.splitlines()
    telling, keep = [], False
    for line in lines:
        if _ENTRY.match(line):
            keep = ": ERROR/" in line or ": CRITICAL/" in line
        if keep:
            telling.append(line)
    return (telling or lines)[-LOG_LINES:]


def _is_unexpected(failure: Failure) -> bool:
    """Whether it is none of the errors that explain themselves, so that the log's traceback says more."""
    return not hasattr(mloc_tasks.errors, failure.type)
