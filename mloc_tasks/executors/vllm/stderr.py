"""What a process and its children write to stderr, passed on and remembered for an error message."""

from __future__ import annotations

import faulthandler
import os
import re
import sys
import threading
from collections import deque

TAIL_BYTES = 64 * 1024
_CAUSE = re.compile(r"(?:^|[\s\]])([A-Za-z_][\w.]*(?:Error|Exception)): (.+)$")
_CONSEQUENCES = ("Engine core initialization failed", "WorkerProc initialization failed", "cancelled")


class StderrTail:
    """Puts a pipe in the place of file descriptor 2; a thread copies all of it to where that led before.

    An engine's own processes inherit the pipe, so it stays for as long as they may live: until this process ends.
    What this one writes while it crashes no thread would copy any more, so `release` takes it off the pipe again; the
    traceback of such a crash never goes through it.
    """

    def __init__(self) -> None:
        self._blocks: deque[bytes] = deque()
        self._size = 0
        sys.stderr.flush()
        self._onward = os.dup(2)
        reading, writing = os.pipe()
        os.dup2(writing, 2)
        os.close(writing)
        if faulthandler.is_enabled():
            faulthandler.enable(self._onward)
        threading.Thread(target=self._copy, args=(reading,), name="stderr", daemon=True).start()

    def release(self) -> None:
        """Once the processes have started: what this one writes goes where it did before, without a detour."""
        sys.stderr.flush()
        os.dup2(self._onward, 2)

    def cause(self) -> str:
        """The last exception that was printed and is no mere consequence of another; empty when there is none."""
        lines = b"".join(list(self._blocks)).decode(errors="replace").splitlines()
        for line in reversed(lines):
            found = _CAUSE.search(line.rstrip())
            if found and not found[2].startswith(_CONSEQUENCES):
                return f"{found[1]}: {found[2]}"
        return ""

    def _copy(self, reading: int) -> None:
        while block := os.read(reading, 65536):
            self._blocks.append(block)
            self._size += len(block)
            while self._size - len(self._blocks[0]) > TAIL_BYTES:
                self._size -= len(self._blocks.popleft())
            view = memoryview(block)
            while view:
                view = view[os.write(self._onward, view) :]
