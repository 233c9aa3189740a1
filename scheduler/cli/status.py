"""`mloc status`: one run, stage by stage."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scheduler.cli.options import AsJson, RunId

if TYPE_CHECKING:
    from rich.console import Console

    from mloc_tasks.ledger import StageRecord
    from scheduler.runs import RunStatus


def status(run: RunId, as_json: AsJson = False) -> None:
    """Show a run: its state, its stages, what it waits for, why it failed.

    Examples:

        mloc status last

        mloc status --json 3f2a | jq -r .state
    """
    from scheduler.cli.documents import status_document
    from scheduler.cli.runs import find_run
    from scheduler.cli.terminal import output, print_json

    found = find_run(run).status()
    if as_json:
        print_json(status_document(found))
        return
    _print_status(output(), found)


def _print_status(console: Console, status: RunStatus) -> None:
    from rich.text import Text

    from scheduler.cli.boundary import show_warning
    from scheduler.cli.failures import print_failures
    from scheduler.cli.states import STYLES

    run = status.run
    console.print(
        Text.assemble(f"{run.id}  ", (run.name, "bold"), "  ", (str(run.state), STYLES[run.state])), soft_wrap=True
    )
    console.print(_facts(status), style="dim", soft_wrap=True)
    console.print()
    console.print(_stage_table(status))
    for reason in status.waiting:
        console.print(f"waiting: {reason}", style="yellow", soft_wrap=True)
    if run.cancel_requested and not run.state.is_final:
        console.print("cancelled: running shards are being ended, nothing else starts", style="yellow", soft_wrap=True)
    for text in run.warnings:
        show_warning(text)
    if run.error is not None or any(stage.error for stage in status.stages):
        print_failures(status)


def _facts(status: RunStatus) -> str:
    from scheduler.cli.wording import clock, duration, elapsed

    run = status.run
    facts = [run.kind, f"submitted {clock(run.created)}"]
    if run.started is not None:
        facts.append(f"waited {duration(run.started - run.created)}")
        facts.append(f"{'ran' if run.ended else 'running for'} {duration(elapsed(run.started, run.ended))}")
    if run.owner:
        facts.append(f"owner {run.owner}")
    facts += [f"{key}={value}" for key, value in run.labels.items()]
    return ", ".join(fact for fact in facts if fact)


def slo_words(status: RunStatus, stage: StageRecord) -> list[str]:
    """`slo 60s met`, for a stage that has one."""
    from scheduler.cli.wording import duration

    return [f"slo {duration(stage.slo_seconds)} {status.slo(stage)}"] if stage.slo_seconds is not None else []


def _stage_table(status: RunStatus) -> object:
    from rich.text import Text

    from scheduler.cli.follow import stage_words
    from scheduler.cli.states import MARKS, STYLES
    from scheduler.cli.tables import table

    grid = table("", "stage", "state", "type", "queue", "after", "progress")
    for stage in status.stages:
        grid.add_row(
            Text(MARKS[stage.state], style=STYLES[stage.state]),
            stage.name,
            Text(stage.state, style=STYLES[stage.state]),
            stage.task_type,
            stage.queue,
            ", ".join(stage.depends_on) or "-",
            "  ".join([*stage_words(stage), *slo_words(status, stage)]) or "-",
        )
    return grid
