"""Specs from files, with their problems as `file:line:column: error: path: message`, which editors and CI parse."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from mloc_tasks.errors import MlocError
from scheduler.cli.terminal import clean, paint
from scheduler.cli.wording import counted

if TYPE_CHECKING:
    from mloc_tasks.spec import Problem, Workflow

STANDARD_INPUT = "-"
COLOURS = {"error": "red", "warning": "yellow"}
# The settings that change what a document means. Reading all settings takes longer than all the rest of `validate`.
_SETTINGS_OF_LANGUAGE = ("MLOC_ENV_ALLOW", "VLLM_MODEL", "PPO_MODEL")


class BadSpecError(MlocError):
    """A file that is not a valid spec."""

    def __init__(self, file: str, problems: Iterable[Problem]) -> None:
        self.file = file
        self.problems = tuple(problems)
        super().__init__(f"{file} has {counted(len(self.problems), 'problem')}")

    def lines(self, stream: IO[str]) -> list[str]:
        """A line for each problem."""
        return [problem_line(self.file, problem, stream) for problem in self.problems]


def load_spec(path: Path) -> tuple[Workflow, str]:
    """The workflow in a file (or on standard input), and its text. Raises BadSpecError."""
    from mloc_tasks.spec import SpecError, load_workflow

    content = _read(path)
    try:
        workflow = load_workflow(content, **_language())
    except SpecError as error:
        raise BadSpecError(shown_name(path), error.problems) from error
    return workflow, content.decode("utf-8", errors="replace")


def _read(path: Path) -> bytes:
    from mloc_tasks.spec import Problem

    try:
        return sys.stdin.buffer.read() if str(path) == STANDARD_INPUT else path.expanduser().read_bytes()
    except OSError as error:
        reason = (
            "there is no such file" if isinstance(error, FileNotFoundError) else f"cannot be read: {error.strerror}"
        )
        raise BadSpecError(shown_name(path), [Problem("", reason)]) from error


def _language() -> dict[str, Any]:
    from mloc_tasks.executors.registry import plugin_task_types

    found: dict[str, Any] = {"env": os.environ, "plugin_task_types": plugin_task_types()}
    if any(os.environ.get(name) for name in _SETTINGS_OF_LANGUAGE):
        from mloc_tasks.settings import get_settings
        from scheduler.submit import default_models

        settings = get_settings()
        found |= {"env_allow": settings.env_allow, "default_models": default_models(settings)}
    return found


def shown_name(path: Path) -> str:
    """What messages call the file."""
    return "<stdin>" if str(path) == STANDARD_INPUT else str(path)


def problem_line(file: str, problem: Problem, stream: IO[str]) -> str:
    """A problem on one line, as compilers print theirs."""
    place = ":".join(str(part) for part in (file, problem.line, problem.column) if part is not None)
    words = [problem.path, problem.message + (f"; {problem.suggestion}" if problem.suggestion else "")]
    severity = paint(f"{problem.severity}:", COLOURS[problem.severity], stream)
    return f"{place}: {severity} {clean(': '.join(filter(None, words)))}".replace("\n", " ")


def problem_document(file: str, problem: Problem) -> Mapping[str, Any]:
    """A problem as JSON."""
    return {
        "file": file,
        "line": problem.line,
        "column": problem.column,
        "severity": problem.severity,
        "path": problem.path,
        "message": problem.message,
        "suggestion": problem.suggestion,
    }
