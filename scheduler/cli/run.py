"""`mloc run`: a spec on this machine, from an empty stage to outputs on the screen, leaving nothing behind."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mloc_tasks.errors import MlocError
from scheduler.cli.boundary import FAILED, INTERRUPTED, show_warning
from scheduler.cli.options import AsJson, SpecFile

MOST_PLACES = 8

if TYPE_CHECKING:
    from mloc_tasks.spec import Workflow
    from scheduler.cli.interrupts import Interrupts
    from scheduler.embedded import EmbeddedStack
    from scheduler.runs import Run, RunStatus


def run(
    spec: SpecFile,
    concurrency: Annotated[
        int | None,
        typer.Option("--concurrency", "-c", min=1, help="Shards that run at once. Each loads the model for itself."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run a spec on this machine and print its outputs.

    Starts a private broker and worker, follows the run, and ends both; needs no service.
    Results stay under RESULTS_DIR (default: ./results). Ctrl-C ends all it started.

    Exit code: 0 done, 1 failed, 2 not a valid spec, 130 interrupted.

    Examples:

        mloc run templates/quickstart.yaml

        RESULTS_DIR=/data/results mloc run -c 4 pipeline.yaml

        mloc run --json pipeline.yaml | jq -r .result
    """
    from scheduler.cli.interrupts import one_interrupt
    from scheduler.embedded import EmbeddedStack

    with one_interrupt() as interrupts:
        workflow, text, queues = _checked(spec)
        with EmbeddedStack(queues, concurrency=concurrency) as stack:
            try:
                code = _run_on(stack, workflow, text, interrupts, spec=spec, as_json=as_json)
            finally:
                interrupts.no_more()
    if code:
        raise typer.Exit(code)


def _checked(spec: Path) -> tuple[Workflow, str, tuple[str, ...]]:
    """All that can be said against the spec before anything starts."""
    from mloc_tasks.queues import load_queues
    from mloc_tasks.settings import get_settings
    from scheduler.cli.fit import require_fit
    from scheduler.cli.specs import load_spec
    from scheduler.plan import make_plan
    from scheduler.submit import check_runnable

    workflow, text = load_spec(spec)
    settings = get_settings()
    for warning in workflow.warnings:
        show_warning(str(warning))
    check_runnable(workflow, settings)
    queues = load_queues(settings.queues_file)
    make_plan(workflow, queues)
    if not settings.allow_unfit:
        require_fit(workflow, settings)
    return workflow, text, tuple(queue.name for queue in queues)


def _run_on(
    stack: EmbeddedStack, workflow: Workflow, text: str, interrupts: Interrupts, *, spec: Path, as_json: bool
) -> int:
    """Submit, follow, report; returns the exit code."""
    from mloc_tasks.ledger import Ledger
    from mloc_tasks.settings import get_settings
    from scheduler.cli.follow import follow
    from scheduler.submit import submit

    def check() -> None:
        interrupts.check()
        stack.check()

    submitted: Run | None = None
    try:
        settings = get_settings()  # the stack's own Redis is in them now
        submitted = submit(workflow, text=text, ledger=Ledger.connect(settings), settings=settings)
        status = follow(submitted, check=check)
        return _report(submitted, status, stack, spec=spec, as_json=as_json)
    except KeyboardInterrupt:
        _cancel(submitted)
        return INTERRUPTED


def _cancel(submitted: Run | None) -> None:
    from scheduler.cli.terminal import notices

    notices().print("interrupted: the run is cancelled; stopping the worker and the broker")
    if submitted is not None:
        with suppress(MlocError):  # the broker goes away now in any case
            submitted.cancel()


def _report(run: Run, status: RunStatus, stack: EmbeddedStack, *, spec: Path, as_json: bool) -> int:
    from scheduler.cli.answers import print_outputs
    from scheduler.cli.failures import print_failures
    from scheduler.cli.terminal import print_json

    succeeded = status.state.is_success
    if as_json:
        print_json(_document(run, status))
    elif succeeded:
        print_outputs(run, status)
        _print_next(run, status, spec)
    if not succeeded:
        print_failures(status, log_tail=stack.log_tail)
    return 0 if succeeded else FAILED


def _document(run: Run, status: RunStatus) -> dict[str, Any]:
    from scheduler.cli.documents import status_document
    from scheduler.cli.wording import place

    document = status_document(status)
    for stage, record in zip(document["stages"], status.stages, strict=True):
        stage["location"] = None if record.result is None else place(run.location(record))
    document["result"] = _result_place(run) if status.state.is_success else None
    return document


def _print_next(run: Run, status: RunStatus, spec: Path) -> None:
    from scheduler.cli.terminal import output
    from scheduler.cli.wording import duration, elapsed, place

    console = output()
    took = duration(elapsed(status.run.created, status.run.ended))
    console.print(f"\nDone in {took}. Results:")
    console.print(f"  {_result_place(run)}", soft_wrap=True)
    if len(status.stages) > MOST_PLACES:
        console.print(f"  {place(run.store.url_of(run.id))}/STAGE/ of each stage", soft_wrap=True)
    else:
        for stage in status.stages:
            if stage.result is not None:
                console.print(f"  {place(run.location(stage))}/", soft_wrap=True)
    console.print(
        f"Next: `mloc plan {spec}` shows how it runs; with Redis and workers (`mloc worker`), "
        f"`mloc submit {spec}` sends it to a fleet.",
        style="dim",
    )


def _result_place(run: Run) -> str:
    from mloc_tasks.data.items import RESPONSES
    from scheduler.cli.wording import place

    return place(run.store.url_of(f"{run.id}/{RESPONSES}"))
