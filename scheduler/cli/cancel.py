"""`mloc cancel`: the end of a run before its time."""

from __future__ import annotations

import typer

from scheduler.cli.options import AsJson, RunId


def cancel(run: RunId, as_json: AsJson = False) -> None:
    """Cancel a run: what is queued never starts; what runs is ended within MLOC_CANCEL_GRACE_SEC.

    Examples:

        mloc cancel last
    """
    from scheduler.cli.runs import find_run
    from scheduler.cli.terminal import print_json

    found = find_run(run)
    before = found.status().state
    state = found.cancel()
    if as_json:
        print_json({"id": found.id, "state": str(state)})
    elif before.is_final:
        typer.echo(f"{found.id} is {state} already")
    elif state.is_final:
        typer.echo(f"{found.id} is {state}")
    else:
        typer.echo(f"{found.id} is {state}: its running shards are being ended, nothing else starts")
