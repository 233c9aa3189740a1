"""How text reaches a terminal: colours only where they are wanted, and no control codes out of data."""

from __future__ import annotations

import json
import os
import re
import sys
from typing import IO, TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

WIDE = 10_000  # columns where there is no terminal: no line is folded
_CODES = {"red": 31, "green": 32, "yellow": 33, "cyan": 36, "dim": 2, "bold": 1}
# Escape sequences as a whole, then every control character but tab and newline: what a model wrote must not move
# the cursor of whoever reads it.
_CONTROL = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def clean(text: str) -> str:
    """The text without control codes."""
    return _CONTROL.sub("", text)


def paint(text: str, colour: str, stream: IO[str]) -> str:
    """The text in a colour, where `stream` is a terminal and NO_COLOR is not set."""
    if os.environ.get("NO_COLOR") or not stream.isatty() or os.environ.get("TERM") == "dumb":
        return text
    return f"\x1b[{_CODES[colour]}m{text}\x1b[0m"


def print_json(document: Any) -> None:
    """One JSON document on stdout."""
    typer.echo(json.dumps(document, ensure_ascii=False, indent=2))


def output() -> Console:
    """A rich console on stdout. Outside of a terminal lines are as long as they are, for grep and awk."""
    return _console(stderr=False)


def notices() -> Console:
    """A rich console on stderr: progress and what else is not the output."""
    return _console(stderr=True)


def _console(*, stderr: bool) -> Console:
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or os.environ.get("COLUMNS") else WIDE
    return Console(stderr=stderr, highlight=False, markup=False, emoji=False, width=width)
