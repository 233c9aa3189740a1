"""The `mloc` command. Everything heavy is imported inside the commands, so that each starts as fast as it can."""

from __future__ import annotations


def main() -> None:
    """The entry point of `mloc`."""
    from scheduler.cli.app import app

    app(prog_name="mloc")
