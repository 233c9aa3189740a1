"""What is written to stderr while an engine is there arrives, whoever writes it and however it ends."""

from __future__ import annotations

import subprocess
import sys

CRASH = """
import ctypes, faulthandler, os, sys
from mloc_tasks.executors.vllm.stderr import StderrTail
faulthandler.enable()  # as PYTHONFAULTHANDLER=1 does, which every host has
tail = StderrTail()
{release}
os.write(2, b"double free or corruption\\n" * {native})  # as the C library does before it aborts
ctypes.string_at(0)  # with the interpreter locked: no other thread can do anything any more
"""
ENGINE = """
import subprocess, sys, time

from mloc_tasks.executors.vllm.stderr import StderrTail
tail = StderrTail()
words = "import sys; sys.stdin.read(); print('ValueError: no such head size', file=sys.stderr)"
engine = subprocess.Popen([sys.executable, "-c", words], stdin=subprocess.PIPE)
tail.release()
print("KeyError: of this process", file=sys.stderr)
engine.communicate()
while not tail.cause():
    time.sleep(0.01)
print(tail.cause())
"""


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)


def test_a_host_that_crashes_once_its_engine_is_there_leaves_its_last_words() -> None:
    done = run(CRASH.format(release="tail.release()", native=1))
    assert done.returncode < 0
    assert "double free or corruption" in done.stderr
    assert "Fatal Python error: Segmentation fault" in done.stderr


def test_a_host_that_crashes_while_it_loads_leaves_its_traceback() -> None:
    assert "Fatal Python error: Segmentation fault" in run(CRASH.format(release="", native=0)).stderr


def test_an_engine_s_words_are_still_copied_and_remembered() -> None:
    done = run(ENGINE)
    assert done.stdout.strip() == "ValueError: no such head size"
    assert "KeyError: of this process" in done.stderr
