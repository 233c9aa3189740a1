"""The command's table of contents: which commands there are, in the order that `mloc --help` shows them."""

from __future__ import annotations

from typing import Annotated

import typer

from scheduler.cli.boundary import Commands
from scheduler.cli.cancel import cancel
from scheduler.cli.cleanup import cleanup
from scheduler.cli.doctor import doctor
from scheduler.cli.fetch import fetch
from scheduler.cli.fleet import queues, workers
from scheduler.cli.list_runs import list_runs
from scheduler.cli.logs import logs
from scheduler.cli.plan import plan
from scheduler.cli.plot import plot
from scheduler.cli.reconcile import reconcile
from scheduler.cli.result import result
from scheduler.cli.resume import resume, retry
from scheduler.cli.run import run
from scheduler.cli.schema import schema
from scheduler.cli.status import status
from scheduler.cli.submit import submit
from scheduler.cli.validate import validate
from scheduler.cli.worker import worker

HERE = "On this machine"
RUNS = "Runs"
SPECS = "Specs"
FLEET = "Fleet"

HELP = """
LLM work described in YAML, on this machine or on a fleet of Celery workers.

Start here: `mloc run templates/quickstart.yaml` needs no service and no GPU.

RUN is a run's id, the beginning of one, or `last`.
"""

app = typer.Typer(
    cls=Commands,
    help=HELP,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from mloc_tasks import __version__

        typer.echo(f"mloc {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options of `mloc` itself."""


app.command(rich_help_panel=HERE)(run)
app.command(rich_help_panel=HERE)(doctor)

app.command(rich_help_panel=RUNS)(submit)
app.command(rich_help_panel=RUNS)(status)
app.command("list", rich_help_panel=RUNS)(list_runs)
app.command(rich_help_panel=RUNS)(logs)
app.command(rich_help_panel=RUNS)(plot)
app.command(rich_help_panel=RUNS)(result)
app.command(rich_help_panel=RUNS)(fetch)
app.command(rich_help_panel=RUNS)(cancel)
app.command(rich_help_panel=RUNS)(resume)
app.command(rich_help_panel=RUNS)(retry)

app.command(rich_help_panel=SPECS)(validate)
app.command(rich_help_panel=SPECS)(plan)
app.command(rich_help_panel=SPECS)(schema)

app.command(
    rich_help_panel=FLEET,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "allow_interspersed_args": True},
)(worker)
app.command(rich_help_panel=FLEET)(workers)
app.command(rich_help_panel=FLEET)(queues)
app.command(rich_help_panel=FLEET)(reconcile)
app.command(rich_help_panel=FLEET)(cleanup)
