"""What holds for every command: help, version, pipes, colours."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from scheduler.cli.app import app
from tests.cli.conftest import MLOC, Mloc, environment

COMMANDS = [command.name or command.callback.__name__ for command in app.registered_commands if command.callback]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(mloc: Mloc, command: str) -> None:
    done = mloc(command, "--help")
    assert done.returncode == 0
    assert "Examples:" in done.stdout
    assert f"mloc {command}" in done.stdout


def test_the_version_is_printed(mloc: Mloc) -> None:
    assert mloc("--version").stdout.startswith("mloc ")


def test_wrong_usage_ends_with_two(mloc: Mloc) -> None:
    assert mloc("status").returncode == 2
    assert mloc("list", "--label", "team").returncode == 2
    assert mloc("nonsense").returncode == 2


def test_a_reader_that_stops_reading_is_no_traceback(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [*MLOC, "schema"], cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.close()
    _, errors = process.communicate(timeout=30)
    assert errors == b""
    assert process.returncode == 1
