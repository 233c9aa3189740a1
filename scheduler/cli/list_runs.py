"""`mloc list`: the newest runs."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from scheduler.cli.options import AsJson

if TYPE_CHECKING:
    from mloc_tasks.ledger import RunRecord

MOST_SEARCHED = 100_000
STATES = ("queued", "running", "done", "failed", "cancelled")


def list_runs(
    owner: Annotated[str | None, typer.Option(metavar="NAME", help="Runs of this owner only.")] = None,
    label: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Runs with this label only; repeatable.")
    ] = None,
    state: Annotated[str | None, typer.Option(metavar="|".join(STATES), help="Runs in this state only.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="At most so many.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List runs, the newest first.

    Examples:

        mloc list --owner alice --state failed

        mloc list --label team=search --json | jq -r '.runs[].id'
    """
    from scheduler.cli.documents import run_document
    from scheduler.cli.terminal import print_json

    labels = _parse_labels(label or [])
    if state is not None and state not in STATES:
        raise typer.BadParameter(f"{state!r} is none of {', '.join(STATES)}", param_hint="--state")
    found = list(islice(_matching(owner, labels, state), limit))
    if as_json:
        print_json({"runs": [run_document(run) for run in found]})
        return
    _print_runs(found, filtered=bool(owner or labels or state))


def _matching(owner: str | None, labels: dict[str, str], state: str | None) -> Iterator[RunRecord]:
    from mloc_tasks.ledger import Ledger

    for run in Ledger.connect().runs(limit=MOST_SEARCHED):
        mine = owner is None or run.owner == owner
        if mine and (state is None or run.state == state) and labels.items() <= run.labels.items():
            yield run


def _parse_labels(texts: list[str]) -> dict[str, str]:
    labels = {}
    for text in texts:
        key, separator, value = text.partition("=")
        if not (key and separator):
            raise typer.BadParameter(f"{text!r} is not KEY=VALUE", param_hint="--label")
        labels[key] = value
    return labels


def _print_runs(runs: list[RunRecord], *, filtered: bool) -> None:
    from rich.text import Text

    from scheduler.cli.states import STYLES
    from scheduler.cli.tables import table
    from scheduler.cli.terminal import notices, output
    from scheduler.cli.wording import clock, duration, elapsed

    if not runs:
        notices().print("no run matches" if filtered else "no runs yet; submit one: mloc submit SPEC")
        return
    grid = table("run", "name", "state", "owner", "stages", "submitted", "took")
    for run in runs:
        grid.add_row(
            run.id,
            run.name,
            Text(run.state, style=STYLES[run.state]),
            run.owner or "-",
            str(len(run.stages)),
            clock(run.created),
            duration(elapsed(run.started, run.ended)),
        )
    output().print(grid)
