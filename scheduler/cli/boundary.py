"""Where errors end: an expected one becomes a message, a hint and an exit code; only a bug shows a traceback."""

from __future__ import annotations

import os
import sys
from typing import Any

import typer
from typer.core import TyperGroup

from mloc_tasks.errors import MlocError
from scheduler.cli.terminal import clean, paint

FAILED = 1
BAD_SPEC = 2
INTERRUPTED = 130  # 128 + SIGINT, as shells count


class Commands(TyperGroup):
    """The group of all commands, with one place that their errors come to."""

    def invoke(self, ctx: Any) -> Any:
        try:
            value = super().invoke(ctx)
            sys.stdout.flush()  # a closed pipe shows here, not at the interpreter's exit
            return value
        except BrokenPipeError:
            _discard_output()
            raise typer.Exit(FAILED) from None
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None
        except Exception as error:
            code = _report(error)
            if code is None:
                raise
            raise typer.Exit(code) from None


def show_error(message: str, hint: str = "") -> None:
    """Print an error, and what to do about it, to stderr."""
    lines = [f"{paint('error:', 'red', sys.stderr)} {clean(message)}"]
    if hint:
        lines.append(f"{paint('hint:', 'cyan', sys.stderr)} {clean(hint)}")
    typer.echo("\n".join(lines), err=True)


def show_warning(message: str) -> None:
    """Print a warning to stderr."""
    typer.echo(f"{paint('warning:', 'yellow', sys.stderr)} {clean(message)}", err=True)


def _report(error: Exception) -> int | None:
    """Print an error that a user can do something about and return its exit code; None for any other."""
    from scheduler.cli.specs import BadSpecError

    if isinstance(error, BadSpecError):
        typer.echo("\n".join(error.lines(sys.stderr)), err=True)
        show_error(str(error), error.hint)
        return BAD_SPEC
    if isinstance(error, MlocError):
        show_error(str(error), error.hint)
        return FAILED
    if type(error).__module__.startswith("redis."):
        show_error(f"Redis: {error}", "`mloc doctor` tells what is wrong with it")
        return FAILED
    return None


def _discard_output() -> None:
    """Send what is left in stdout's buffer nowhere, so that the interpreter does not complain at its exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
