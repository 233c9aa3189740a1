"""One process of a training that has several, as its owner sees it: started, listened to, ended."""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path

from mloc_tasks.executors.training.child import Order
from mloc_tasks.host.frames import Frame, Wire
from mloc_tasks.host.output import lines

BOOT = Path(__file__).resolve().parents[2] / "host" / "boot.py"
EXIT_SEC = 10.0  # for a process that is done to end
OUTPUT_SEC = 1.0  # for the last lines of one that has ended
TAIL_LINES = 20


class TrainingProcess:
    """One of the processes, started by the constructor.

    What it says comes to `events`, and at last, as type "ended", that it has ended. All that the first one prints goes
    to this process's own output; of what the others print the end is kept.
    """

    def __init__(
        self, order: Order, env: Mapping[str, str], events: Events, *, listening: socket.socket | None = None
    ) -> None:
        self.rank = order.place.rank
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._events = events
        ours, theirs = socket.socketpair()
        with theirs:
            given = [theirs.fileno(), *([listening.fileno()] if listening else [])]
            try:
                self._process = subprocess.Popen(
                    [sys.executable, str(BOOT), "call", f"{Order.__module__}:serve", *map(str, given)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    env=env,
                    pass_fds=given,
                )
            except BaseException:
                ours.close()
                raise
        self._wire = Wire(ours)
        self._threads = [self._thread(work) for work in (self._read_frames, self._read_output)]
        self._thread(self._wait)
        assert self._process.stdin is not None
        with contextlib.suppress(OSError), self._process.stdin as orders:  # that it has ended is heard otherwise
            pickle.dump(order, orders)

    def leave(self) -> None:
        """It is done and may end, when the others are."""
        self._wire.close()

    def wait_for_end(self) -> None:
        """Of one that may end; in vain where a library keeps it."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(EXIT_SEC)

    def kill(self) -> None:
        """End it at once; twice is harmless."""
        self._process.kill()
        self._wire.close()

    def wait(self) -> None:
        """Until it has ended, and what it has printed is read."""
        self._process.wait()
        for thread in self._threads:
            thread.join(OUTPUT_SEC)

    def _thread(self, work: Callable[[], None]) -> threading.Thread:
        thread = threading.Thread(target=work, name=f"mloc-rank-{self.rank}", daemon=True)
        thread.start()
        return thread

    def _read_frames(self) -> None:
        while (frame := self._wire.receive()) is not None:
            self._events.put((self, frame))

    def _read_output(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as output:

            def read() -> bytes:
                block = os.read(output.fileno(), 65_536)
                view = memoryview(block if self.rank == 0 else b"")
                while view:
                    view = view[os.write(2, view) :]
                return block

            self.tail.extend(lines(read))

    def _wait(self) -> None:
        self.wait()  # not for the end of its socket or output: what it has forked may hold them
        self._events.put((self, {"type": "ended", "time": time.monotonic(), "code": self._process.returncode}))


Events = queue.SimpleQueue[tuple[TrainingProcess, Frame]]
