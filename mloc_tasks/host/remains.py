"""What is left of a host whose guard was killed: found by a mark in the environment, and ended."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

MARK = "MLOC_HOST"  # in the environment of all that a host starts: which host
GONE_SEC = 10.0
LOOK_SEC = 0.02


def end_remains(mark: str) -> None:
    """Kill every process with the mark, and wait until there is none."""
    deadline = time.monotonic() + GONE_SEC
    while (found := list(_marked(mark))) and time.monotonic() < deadline:
        for pid in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(LOOK_SEC)


def _marked(mark: str) -> Iterator[int]:
    wanted = f"{MARK}={mark}".encode()
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended, or is another user's
            if wanted in (entry / "environ").read_bytes().split(b"\0"):
                yield int(entry.name)
