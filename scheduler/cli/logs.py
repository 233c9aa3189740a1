"""`mloc logs`: what happened in a run, and what happens."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from scheduler.cli.options import AsJson, RunId, StageName

if TYPE_CHECKING:
    from mloc_tasks.ledger import Event

LEVELS = {"warning": "yellow", "error": "red", "critical": "red"}
STATES = {"done": "green", "failed": "red", "running": "cyan", "cancelled": "yellow", "released": "yellow"}


def logs(
    run: RunId,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run ends.")] = False,
    stage: StageName = None,
    as_json: AsJson = False,
) -> None:
    """Print what happens in a run: states, progress, log lines, metrics.

    With --json one JSON object a line.

    Examples:

        mloc logs -f last

        mloc logs --stage train --json last | jq -c 'select(.kind == "metrics") | .data'
    """
    from scheduler.cli.documents import event_document
    from scheduler.cli.runs import find_run

    found = find_run(run)
    _check_stage(found.status().run.stages, stage)
    for event in found.events(follow=follow):
        if stage is not None and event.stage != stage:
            continue
        typer.echo(json.dumps(event_document(event), ensure_ascii=False) if as_json else _line(event))
        if follow:
            sys.stdout.flush()


def _check_stage(stages: tuple[str, ...], wanted: str | None) -> None:
    if wanted is not None and wanted not in stages:
        raise typer.BadParameter(f"the run has no stage {wanted!r}; it has {', '.join(stages)}", param_hint="--stage")


def _line(event: Event) -> str:
    from scheduler.cli.terminal import clean, paint
    from scheduler.cli.wording import clock

    where = event.stage or "run"
    if event.shard and event.kind != "progress":  # its figures are those of the whole stage
        where += f"[{event.shard}]"
    return f"{paint(clock(event.time), 'dim', sys.stdout)} {where}: {clean(_words(event))}"


def _words(event: Event) -> str:
    data = event.data
    if event.kind == "log":
        level, message = str(data.get("level", "info")), str(data.get("message", ""))
        return message if level not in LEVELS else f"{level}: {message}"
    if event.kind == "metrics":
        values = [f"{name}={value:.4g}" for name, value in data.items() if name != "step"]
        return f"step {data.get('step')}: {', '.join(values)}"
    if event.kind == "progress":
        total = data.get("total")
        return f"{data.get('done', 0):,}{f'/{total:,}' if total else ''} done"
    if event.kind == "scatter":
        rows = data.get("rows")
        return f"split into {data.get('shards')} shards" + (f" of {rows:,} rows" if rows is not None else "")
    return _state_words(event)


def _state_words(event: Event) -> str:
    words = event.state
    if event.kind == "shard":
        worker = event.data.get("worker")
        words += f" (attempt {event.attempt}{f' on {worker}' if worker and event.state == 'running' else ''})"
    message = event.data.get("message")
    # A failure is told once, where it happened; the stage and the run repeat it in their own events.
    if message and event.kind == "shard":
        words += f": {message}"
    return words
