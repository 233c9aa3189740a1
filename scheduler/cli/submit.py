"""`mloc submit`: specs to the fleet."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scheduler.cli.options import AsJson, SpecFiles

if TYPE_CHECKING:
    from scheduler.runs import RunStatus


def submit(
    specs: SpecFiles,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print the run's id alone.")] = False,
    as_json: AsJson = False,
) -> None:
    """Submit specs to the fleet and return at once.

    The fleet is the workers on REDIS_URL. All specs are checked before the first is submitted.

    Examples:

        mloc submit pipeline.yaml

        id=$(mloc submit -q pipeline.yaml) && mloc result --wait $id
    """
    from scheduler.cli.boundary import show_warning
    from scheduler.cli.documents import status_document
    from scheduler.cli.terminal import print_json

    statuses = _submit_all(specs)
    if as_json:
        print_json({"runs": [status_document(status) for status in statuses]})
        return
    for status in statuses:
        if quiet:
            typer.echo(status.run.id)
            continue
        typer.echo(_line(status))
        for text in (*status.run.warnings, *(f"waiting: {reason}" for reason in status.waiting)):
            show_warning(text)


def _submit_all(specs: list[Path]) -> list[RunStatus]:
    from mloc_tasks.ledger import Ledger
    from mloc_tasks.settings import get_settings
    from scheduler.cli.specs import load_spec
    from scheduler.submit import check_runnable, submit

    loaded = [load_spec(spec) for spec in specs]
    settings = get_settings()
    for workflow, _ in loaded:
        check_runnable(workflow, settings)
    ledger = Ledger.connect(settings)
    ledger.ping()
    return [submit(workflow, text=text, ledger=ledger, settings=settings).status() for workflow, text in loaded]


def _line(status: RunStatus) -> str:
    from scheduler.cli.runs import short
    from scheduler.cli.wording import counted

    run = status.run
    stages = counted(len(status.stages), "stage")
    return f"{run.id}  {run.name}  {run.state} ({stages}); follow it: mloc logs -f {short(run.id)}"
