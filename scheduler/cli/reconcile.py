"""`mloc reconcile`: runs whose messages were lost go on."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scheduler.cli.options import AsJson

if TYPE_CHECKING:
    from scheduler.reconcile import Finding, Reconciler


def reconcile(
    every: Annotated[str, typer.Option(metavar="DURATION", help="Time between two looks, such as `30s`.")] = "30s",
    once: Annotated[bool, typer.Option("--once", help="Look once and end.")] = False,
    grace: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION",
            help="How long nothing must have happened in a run; default: twice MLOC_VISIBILITY_TIMEOUT_SEC.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Send runs again whose messages were lost.

    Looks at every run that has not ended. One with work that neither a message nor a live worker stands for is sent
    again; a cancelled one whose workers are gone is ended. Both are safe at any time. Let it run beside the workers.

    With --json, one line for each look that found something; with --once always one.

    Examples:

        mloc reconcile --every 30s

        mloc reconcile --once --json | jq -r '.runs[].id'
    """
    from mloc_tasks.ledger import Ledger
    from mloc_tasks.settings import get_settings
    from scheduler.reconcile import Reconciler

    interval = _seconds(every, "--every")
    settings = get_settings()
    ledger = Ledger.connect(settings)
    ledger.ping()
    reconciler = Reconciler(
        ledger=ledger, settings=settings, grace_sec=0.0 if grace is None else _seconds(grace, "--grace")
    )
    if once:
        _show(reconciler.look(), as_json=as_json, also_nothing=True)
        return
    while True:
        _look(reconciler, as_json=as_json)
        time.sleep(interval)


def _look(reconciler: Reconciler, *, as_json: bool) -> None:
    from mloc_tasks.errors import BrokerError
    from scheduler.cli.boundary import show_warning

    try:
        _show(reconciler.look(), as_json=as_json, also_nothing=False)
    except BrokerError as error:
        show_warning(f"{error}; looking again later")


def _show(findings: list[Finding], *, as_json: bool, also_nothing: bool) -> None:
    import json

    if as_json:
        if findings or also_nothing:
            typer.echo(json.dumps({"runs": [_document(finding) for finding in findings]}))
        return
    for finding in findings:
        done = "sent again" if finding.decision.action == "resend" else "ended"
        typer.echo(f"{finding.run_id}  {done}: {finding.decision.reason}")
    if also_nothing and not findings:
        typer.echo("nothing is stranded")


def _document(finding: Finding) -> dict[str, Any]:
    decision = finding.decision
    return {
        "id": finding.run_id,
        "action": str(decision.action),
        "reason": decision.reason,
        "shards": [{"stage": stage, "shard": shard} for stage, shard in decision.shards],
    }


def _seconds(text: str, option: str) -> float:
    from mloc_tasks.spec.quantities import parse_seconds

    try:
        seconds = parse_seconds(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from error
    if seconds <= 0:
        raise typer.BadParameter(f"{text!r} is not a time above zero", param_hint=option)
    return seconds
