"""`mloc validate`: everything that is wrong with specs, without a broker."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from scheduler.cli.boundary import BAD_SPEC
from scheduler.cli.options import AsJson, SpecFiles

if TYPE_CHECKING:
    from mloc_tasks.spec import Problem, Stage, Workflow


def validate(specs: SpecFiles, as_json: AsJson = False) -> None:
    """Check specs and list every problem.

    A line for each: `file:line:column: error: path: message`.
    What is valid but cannot run in this installation is a warning.

    Exit code: 0 all valid, 2 not.

    Examples:

        mloc validate templates/*.yaml

        mloc validate --json pipeline.yaml | jq -r '.problems[].message'
    """
    from scheduler.cli.specs import problem_document, problem_line, shown_name
    from scheduler.cli.terminal import print_json

    found = [(shown_name(spec), problem) for spec in specs for problem in _problems(spec)]
    valid = not any(problem.severity == "error" for _, problem in found)
    if as_json:
        print_json({"ok": valid, "problems": [problem_document(file, problem) for file, problem in found]})
    else:
        for file, problem in found:
            typer.echo(problem_line(file, problem, sys.stdout))
        typer.echo(_summary([problem for _, problem in found], len(specs)), err=True)
    if not valid:
        raise typer.Exit(BAD_SPEC)


def _summary(problems: list[Problem], files: int) -> str:
    from scheduler.cli.wording import counted

    errors = sum(problem.severity == "error" for problem in problems)
    warnings = len(problems) - errors
    of = f" in {counted(files, 'spec')}"
    if errors:
        return counted(errors, "error") + (f", {counted(warnings, 'warning')}" if warnings else "") + of
    return f"{counted(files, 'spec')} valid" + (f", {counted(warnings, 'warning')}" if warnings else "")


def _problems(spec: Path) -> Iterator[Problem]:
    from scheduler.cli.specs import BadSpecError, load_spec

    try:
        workflow, _ = load_spec(spec)
    except BadSpecError as error:
        yield from error.problems
        return
    yield from workflow.warnings
    yield from _not_here(workflow)


def _not_here(workflow: Workflow) -> Iterator[Problem]:
    """What of a valid spec this installation cannot run, as warnings."""
    from mloc_tasks.errors import MlocError
    from mloc_tasks.executors.registry import missing_reason
    from mloc_tasks.spec import Problem

    reasons: dict[str, list[str]] = {}
    for stage in workflow.stages:
        try:
            reason = missing_reason(stage.spec.task_type, stage.document) or _unrouted(stage)
        except MlocError as error:
            reason = str(error)
        if reason:
            reasons.setdefault(reason, []).append(stage.name)
    for reason, stages in reasons.items():
        names = f"stage {stages[0]}" if len(stages) == 1 else f"stages {', '.join(stages)}"
        yield Problem("", f"{names} cannot run in this installation: {reason}", severity="warning")


def _unrouted(stage: Stage) -> str | None:
    """Why no declared queue takes the stage, or None."""
    from mloc_tasks.capabilities import Requirement
    from mloc_tasks.errors import RoutingError
    from mloc_tasks.queues import load_queues
    from scheduler.routing import route

    spec = stage.spec
    file = os.environ.get("MLOC_QUEUES_FILE")
    need = Requirement.of(spec.task_type, spec.resources, enforce_cpu=spec.enforce_cpu)
    try:
        route(need, load_queues(Path(file) if file else None), stage=stage.name)
    except RoutingError as error:
        head, *queues = str(error).splitlines()
        return f"{head} {'; '.join(line.strip() for line in queues)}"
    return None
