"""`mloc doctor`: whether all is there that MLOC needs, and what to do about what is not."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from scheduler.cli.boundary import FAILED, show_error
from scheduler.cli.options import AsJson

if TYPE_CHECKING:
    from scheduler.cli.checkup import Finding

MARKS = {"ok": ("✔", "green"), "note": ("-", "dim"), "problem": ("✘", "red")}


def doctor(
    settings: Annotated[
        bool, typer.Option("--settings", help="List every environment variable instead, with its current value.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check broker, artifact store, hardware, packages, queues file and settings.

    Exit code: 0 all that is needed is there, 1 something is not.

    Examples:

        mloc doctor

        mloc doctor --settings
    """
    from scheduler.cli.checkup import examine
    from scheduler.cli.terminal import print_json

    if settings:
        _show_settings(as_json=as_json)
        return
    findings = list(examine())
    well = not any(finding.state == "problem" for finding in findings)
    if as_json:
        print_json({"ok": well, "checks": [asdict(finding) for finding in findings]})
    else:
        _print_findings(findings)
    if not well:
        raise typer.Exit(FAILED)


def _print_findings(findings: list[Finding]) -> None:
    from rich.text import Text

    from scheduler.cli.tables import table
    from scheduler.cli.terminal import output

    grid = table("", "", "")
    grid.show_header = False
    for finding in findings:
        mark, style = MARKS[finding.state]
        grid.add_row(Text(mark, style=style), finding.what, finding.found)
        if finding.advice:
            grid.add_row("", "", Text(f"-> {finding.advice}", style="yellow" if finding.state == "problem" else "dim"))
    console = output()
    console.print(grid)
    problems = sum(finding.state == "problem" for finding in findings)
    console.print()
    if problems:
        console.print(f"{problems} to repair; what to do stands beside each.", style="red")
    else:
        console.print("All that is needed is there.", style="green")


def _show_settings(*, as_json: bool) -> None:
    from rich.text import Text

    from mloc_tasks.errors import ConfigError
    from mloc_tasks.settings import get_settings
    from scheduler.cli.settings_table import variables
    from scheduler.cli.tables import table
    from scheduler.cli.terminal import output, print_json

    found = variables()
    if as_json:
        print_json({"settings": [asdict(variable) for variable in found]})
        return
    grid = table("variable", "value", "default", "meaning")
    for variable in found:
        value = Text(variable.value, style="bold" if variable.is_set else "dim")
        grid.add_row(variable.name, value, variable.default, variable.meaning)
    output().print(grid)
    try:
        get_settings()
    except ConfigError as error:
        show_error(str(error))
        raise typer.Exit(FAILED) from None
