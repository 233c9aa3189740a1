"""`mloc result`: what a run gave."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from mloc_tasks.errors import MlocError
from scheduler.cli.options import AsJson, RunId, StageName

if TYPE_CHECKING:
    from scheduler.runs import Run, RunStatus


# How a message says what a run or stage without a result came to.
ENDED = {
    "done": "ended without a result",
    "cached": "ended without a result",
    "failed": "failed",
    "cancelled": "was cancelled",
    "skipped": "was skipped",
}


class NoResultError(MlocError):
    """The run or stage has no result, or none yet."""


def result(
    run: RunId,
    stage: StageName = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the run's end.")] = False,
    as_json: AsJson = False,
) -> None:
    """Print the result of a run or stage.

    Prompts and answers; with --json the whole responses.json. Of a
    large result `items` holds the first 100; `mloc fetch` brings the rest.

    Examples:

        mloc result last

        mloc result --wait --json 3f2a | jq -r '.items[].output'
    """
    from scheduler.cli.answers import print_stage, reader
    from scheduler.cli.runs import find_run
    from scheduler.cli.terminal import output, print_json

    found = find_run(run)
    if wait:
        found.wait()
    status = found.status()
    name = stage or status.run.result_stage
    _require_result(found, status, name, whole=stage is None)
    items = reader(found, name)
    if as_json:
        print_json(items.document)
    else:
        print_stage(output(), name, items)


def _require_result(run: Run, status: RunStatus, name: str, *, whole: bool) -> None:
    record = next((stage for stage in status.stages if stage.name == name), None)
    if record is None:
        names = ", ".join(stage.name for stage in status.stages)
        raise typer.BadParameter(f"the run has no stage {name!r}; it has {names}", param_hint="--stage")
    if record.result is not None:
        return
    error = record.error or status.run.error
    if status.state.is_final:
        why = f": {error}" if error else ""
        what = f"run {run.id} {ENDED[status.state]}" if whole else f"stage {name} {ENDED[record.state]}"
        raise NoResultError(f"{what}{why}", hint=error.hint if error else "")
    since = time.strftime("%H:%M:%S", time.localtime(status.run.created))
    raise NoResultError(
        f"stage {name} is {record.state} and has no result yet (submitted {since})",
        hint=f"wait for it: mloc result --wait {run.id}",
    )
