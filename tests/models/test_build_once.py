"""A shared cache directory is built once, and half-built ones are never taken for complete."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mloc_tasks.models.build_once import build_once

# Builds `argv[1]`; says "building" and then waits for a line on its input, so that the test decides when it goes on.
BUILDER = """
import sys
from pathlib import Path
from mloc_tasks.models.build_once import build_once

def build(staging):
    (staging / "first").write_text(sys.argv[2])
    print("building", flush=True)
    sys.stdin.readline()
    (staging / "last").write_text(sys.argv[2])

print("built" if build_once(Path(sys.argv[1]), build) else "found", flush=True)
"""


def start_builder(target: Path, name: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", BUILDER, str(target), name]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def release(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def test_second_process_waits_and_finds_what_the_first_built(tmp_path: Path) -> None:
    target = tmp_path / "model"
    first = start_builder(target, "first")
    assert line_of(first) == "building"
    second = start_builder(target, "second")
    assert not target.exists()
    release(first)
    assert line_of(first) == "built"
    assert line_of(second) == "found"
    assert (target / "last").read_text() == "first"
    assert first.wait() == second.wait() == 0
    assert [each.name for each in tmp_path.iterdir() if each.is_dir()] == ["model"]


def test_killed_builder_leaves_nothing_that_counts_and_the_next_builds(tmp_path: Path) -> None:
    target = tmp_path / "model"
    killed = start_builder(target, "killed")
    assert line_of(killed) == "building"
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert not target.exists()
    assert build_once(target, lambda staging: (staging / "last").write_text("next") and None)
    assert (target / "last").read_text() == "next"
    assert [each.name for each in tmp_path.iterdir() if each.is_dir()] == ["model"], "its staging directory is gone"


def test_threads_of_one_process_build_once(tmp_path: Path) -> None:
    builds: list[str] = []

    def build(staging: Path) -> None:
        builds.append(staging.name)

    threads = [threading.Thread(target=build_once, args=(tmp_path / "model", build)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(builds) == 1


def test_failed_build_leaves_nothing(tmp_path: Path) -> None:
    def build(staging: Path) -> None:
        (staging / "half").write_text("")
        raise OSError(28, os.strerror(28))

    with pytest.raises(OSError, match="No space left"):
        build_once(tmp_path / "model", build)
    assert [each for each in tmp_path.iterdir() if each.is_dir()] == []
