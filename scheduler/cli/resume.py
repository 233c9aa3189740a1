"""`mloc resume` and `mloc retry`: runs that ended, taken up again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from scheduler.cli.options import AsJson, RunId

if TYPE_CHECKING:
    from scheduler.runs import Run


def resume(
    run: RunId,
    from_stage: Annotated[
        str | None,
        typer.Option("--from", metavar="STAGE", help="This stage and all that depends on it too, even where done."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run what a failed or cancelled run has not done.

    Shards that are done stay done. `retry.maxAttempts` is counted anew.

    Examples:

        mloc resume last

        mloc resume 3f2a --from summarize
    """
    from scheduler.cli.runs import find_run

    found = find_run(run)
    _report(found, found.resume(from_stage), as_json=as_json)


def retry(
    run: RunId,
    failed: Annotated[
        bool, typer.Option("--failed", help="What failed, and what was skipped because of it; not what was cancelled.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Run the failed shards of a run again.

    Examples:

        mloc retry last --failed
    """
    from scheduler.cli.runs import find_run

    if not failed:
        raise typer.BadParameter("say what to retry: --failed (`mloc resume` runs all that is not done)")
    found = find_run(run)
    _report(found, found.retry_failed(), as_json=as_json)


def _report(run: Run, stages: tuple[str, ...], *, as_json: bool) -> None:
    from scheduler.cli.runs import short
    from scheduler.cli.terminal import print_json

    if as_json:
        print_json({"id": run.id, "state": str(run.status().state), "stages": list(stages)})
    else:
        typer.echo(f"{run.id}  runs again: {', '.join(stages)}; follow it: mloc logs -f {short(run.id)}")
