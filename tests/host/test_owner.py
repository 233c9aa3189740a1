"""A process that has hosts ends, by itself or not: nothing of them is left."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.host.conftest import processes_of
from tests.waiting import wait_until

ROOT = Path(__file__).parents[2]


@pytest.fixture
def owner(request: pytest.FixtureRequest, tmp_path: Path, of_this_test: str) -> subprocess.Popen[bytes]:
    """A process whose host runs a task that has started children of every kind."""
    command = [sys.executable, "-m", "tests.host.owner", str(tmp_path), *getattr(request, "param", ())]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline().strip().isdigit()
    assert len(processes_of(of_this_test)) == 1 + 2 + 4
    return process


def by_closing_its_input(owner: subprocess.Popen[bytes]) -> None:
    assert owner.stdin is not None
    owner.stdin.close()


@pytest.mark.parametrize(
    "end",
    [by_closing_its_input, subprocess.Popen.kill, subprocess.Popen.terminate],
    ids=["by itself", "killed", "terminated"],
)
def test_with_its_owner_a_host_ends_and_all_that_it_started(
    owner: subprocess.Popen[bytes], end: Callable[[subprocess.Popen[bytes]], None], of_this_test: str
) -> None:
    end(owner)
    owner.wait(30)
    wait_until(lambda: not processes_of(of_this_test))


@pytest.mark.parametrize("whose", ["host", "guard"])
def test_what_is_killed_beneath_its_owner_leaves_nothing(
    owner: subprocess.Popen[bytes], whose: str, of_this_test: str
) -> None:
    guard = next(child for child in psutil.Process(owner.pid).children() if "guard.py" in " ".join(child.cmdline()))
    host = next(child for child in guard.children() if "boot.py" in " ".join(child.cmdline()))
    (guard if whose == "guard" else host).send_signal(signal.SIGKILL)
    wait_until(lambda: [process.pid for process in processes_of(of_this_test)] == [owner.pid])
    owner.kill()
    owner.wait(30)


@pytest.mark.parametrize("owner", [["fork"]], indirect=True)
def test_a_fork_of_its_owner_keeps_no_host_alive(owner: subprocess.Popen[bytes], of_this_test: str) -> None:
    assert owner.stdin is not None
    assert owner.stdout is not None
    owner.stdin.write(b"\n")
    owner.stdin.flush()
    assert owner.stdout.readline() == b"forked\n"
    (fork,) = (child for child in psutil.Process(owner.pid).children() if "owner" in " ".join(child.cmdline()))
    owner.kill()
    wait_until(lambda: [process.pid for process in processes_of(of_this_test)] == [fork.pid])
    fork.kill()
    owner.wait(30)
