"""One executor host as its owner sees it: started, given tasks, asked to end or made to."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mloc_tasks.errors import BrokerError, ConfigError, HostCrashedError
from mloc_tasks.executors.base import Reporter
from mloc_tasks.host.failures import from_frame, how_it_ended, what_to_do
from mloc_tasks.host.frames import Frame, Wire
from mloc_tasks.host.output import lines, marked_end
from mloc_tasks.host.remains import MARK, end_remains

logger = logging.getLogger("mloc.host")

HERE = Path(__file__).parent
START_SEC = 120.0  # to import an executor's module, from a slow disk
LOOK_SEC = 0.5  # between two looks at whether a task is still wanted
GUARD_SEC = 20.0  # for a guard to end a host: longer than its DESCENDANTS_GONE_SEC
OUTPUT_SEC = 1.0  # for the last lines of a task to come
TAIL_LINES = 20
MOST_WAITING = 10_000  # reports and lines that wait for a task's thread; it is busy elsewhere, and more are dropped
DROPPABLE = frozenset({"line", "log", "progress"})


class Call:
    """A task that the host works on: the frames about it, and whether all of its output has come."""

    def __init__(self, rows: int) -> None:
        self.rows_left = rows
        self.frames: queue.SimpleQueue[Frame] = queue.SimpleQueue()
        self.said_all = threading.Event()

    def put(self, frame: Frame) -> None:
        if frame["type"] not in DROPPABLE or self.frames.qsize() < MOST_WAITING:
            self.frames.put(frame)

    def next(self, within_sec: float) -> Frame | None:
        """The next frame; None when there is none yet."""
        try:
            return self.frames.get(timeout=max(within_sec, 0))
        except queue.Empty:
            return None


class HostProcess:
    """A host, started by the constructor; `run` blocks until it is ready.

    Args:
        target: `module:Class` of its executor.
        python: the interpreter it runs under.
        env: its whole environment.
        concurrent: whether the executor takes several tasks at once.

    Attributes:
        pid: its process id, once it is ready.
        rows_at_once: how many rows the executor batches, once it has said so.
        gone: set when nothing of it is left.
    """

    def __init__(self, target: str, *, python: str, env: Mapping[str, str], concurrent: bool) -> None:
        self._python = python
        self._concurrent = concurrent
        self._numbers = itertools.count(1)
        self._calls: dict[int, Call] = {}
        self._lock = threading.Lock()
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._first: Frame | None = None  # that it sent: whether it is ready
        self._first_came = threading.Event()
        self._why = ""  # it was ended, where that was not its own doing
        self._mark = uuid.uuid4().hex
        self.rows_at_once: int | None = None
        self.gone = threading.Event()
        self.pid = 0
        ours, theirs = socket.socketpair()
        life, self._life = os.pipe()
        try:
            wire, owner = str(theirs.fileno()), str(os.getpid())
            guard = [sys.executable, "-I", "-S", str(HERE / "guard.py"), str(life), wire, owner]
            self._guard = subprocess.Popen(
                [*guard, python, str(HERE / "boot.py"), wire, target],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env={**env, MARK: self._mark},
                pass_fds=(theirs.fileno(), life),
                start_new_session=True,  # a signal to the worker's group is for the worker
            )
        except BaseException:
            ours.close()
            os.close(self._life)
            raise
        finally:
            theirs.close()
            os.close(life)
        self._wire = Wire(ours)
        self._outbox: queue.SimpleQueue[Frame | None] = queue.SimpleQueue()
        self._output = self._thread("output", self._read_output)
        self._thread("write", self._write_frames)
        self._thread("read", self._read_frames)

    @property
    def ending(self) -> bool:
        """Whether it is at its end; what it still has to do will fail."""
        return self._life < 0

    @property
    def rows_left(self) -> int:
        """Rows of its tasks that are not finished."""
        with self._lock:
            return sum(call.rows_left for call in self._calls.values())

    def run(self, task: Frame, report: Reporter, look: Callable[[], None], *, grace_sec: float) -> dict[str, Any]:
        """Have the host do a task; gives its result, less what lies in its output directory.

        `look` is called at least every half second from this thread; what it raises ends the task, or the whole host
        where it does not end within `grace_sec`, and is raised here. Raises what the executor raised, `ConfigError`
        when the process cannot start, and `HostCrashedError` when it ended in the middle.
        """
        number = next(self._numbers)
        call = Call((task.get("rows") or {}).get("count", 0))
        with self._lock:
            self._calls[number] = call
        try:
            self._wait_until_ready(look)  # what is raised meanwhile does the process no harm: it knows of no task
            if not self._concurrent:
                self._tail.clear()
            self._outbox.put({**task, "id": number})
            if self.gone.is_set():  # since it was chosen; its reader tells only those it knew
                call.put({"type": "gone"})
            ended = False
            try:
                while True:
                    look()
                    frame = call.next(LOOK_SEC)
                    if frame is None:
                        continue
                    ended = frame["type"] in ("result", "error", "gone")
                    if not ended:
                        self._report(frame, call, report)
                    elif frame["type"] == "result":
                        result: dict[str, Any] = frame["result"]
                        return result
                    else:
                        raise self._failure(frame, call)
            except BaseException:
                if not ended:
                    self._end_task(number, call, grace_sec)
                raise
        finally:
            with self._lock:
                del self._calls[number]

    def retire(self, *, grace_sec: float) -> None:
        """End it while it has nothing to do: its executor may close what it holds; returns when all of it is gone."""
        self._outbox.put({"type": "stop"})
        self._wait_for_guard(grace_sec)
        self.kill()

    def end(self, *, grace_sec: float) -> None:
        """SIGTERM to its process group, SIGKILL to all that it started after the grace; returns when all is gone."""
        if self._guard.poll() is None:
            self._guard.send_signal(signal.SIGTERM)
            self._wait_for_guard(grace_sec)
        self.kill()

    def kill(self, why: str = "") -> None:
        """End it and all that it started at once; returns when all of it is gone. Twice is harmless.

        Args:
            why: what the attempts are told that it still serves.
        """
        with self._lock:
            self._why = self._why or why
            if self._life >= 0:
                os.close(self._life)  # its guard does the rest
                self._life = -1
        if not self._wait_for_guard(GUARD_SEC):
            self._guard.kill()
            self._guard.wait()
        if self._guard.returncode < 0:  # the guard itself was killed; the host died with it, but not what that started
            end_remains(self._mark)
        self._outbox.put(None)
        self._wire.close()
        self.gone.set()

    def _wait_for_guard(self, sec: float) -> bool:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._guard.wait(sec)
        return self._guard.returncode is not None

    def _wait_until_ready(self, look: Callable[[], None]) -> None:
        deadline = time.monotonic() + START_SEC
        while not self._first_came.wait(LOOK_SEC):
            look()
            if time.monotonic() > deadline:
                self.kill()
                raise HostCrashedError(f"the executor's process was not ready within {START_SEC:g} s")
        assert self._first is not None
        if self._first["type"] != "ready":
            raise self._start_failure(self._first)

    def _end_task(self, number: int, call: Call, grace_sec: float) -> None:
        """End one task: a concurrent host is asked to, because it serves others; any other one is ended."""
        if not self._concurrent:
            self.end(grace_sec=grace_sec)
            return
        self._outbox.put({"type": "cancel", "id": number})
        deadline = time.monotonic() + grace_sec
        while (left := deadline - time.monotonic()) > 0:
            frame = call.next(left)
            if frame is not None and frame["type"] in ("result", "error", "gone"):
                return
        logger.warning("a task did not end within %g s of being cancelled; its process is ended", grace_sec)
        self.kill(f"was ended, because another task in it did not end within {grace_sec:g} s of being cancelled")

    def _report(self, frame: Frame, call: Call, report: Reporter) -> None:
        """Pass on what the host says about a task; it may get lost while the broker is away."""
        kind = frame["type"]
        try:
            if kind == "progress":
                self.rows_at_once = frame["at_once"]
                if frame["total"] is not None:
                    call.rows_left = frame["total"] - frame["done"]
                report.progress(frame["done"], frame["total"])
            elif kind == "log":
                report.log(frame["message"], level=frame["level"])
            elif kind == "metrics":
                report.metrics(frame["step"], frame["values"])
            elif kind == "line":
                logger.info("%s", frame["text"])
        except BrokerError as error:
            logger.warning("a report of the executor is lost: %s", error)

    def _failure(self, frame: Frame, call: Call) -> Exception:
        """How a task failed, after its last lines have been logged from this thread, which is its attempt's."""
        if frame["type"] == "gone":
            self._output.join(OUTPUT_SEC)
            self._log_rest(call, all_of_it=self._concurrent)
            what = f"the executor's process {self._how_it_ended()} in the middle of a task"
            return HostCrashedError(what, hint="" if self._why else what_to_do(self._guard.returncode))
        call.said_all.wait(OUTPUT_SEC)
        self._log_rest(call, all_of_it=False)
        _log_trace(frame)
        if frame["broken"]:
            self.kill(f"was ended, because it was broken: {frame['message']}")
        return from_frame(frame)

    def _start_failure(self, first: Frame) -> Exception:
        """Why it is not ready. It will not be the next time either, unless something killed it."""
        if first["type"] == "failed":
            _log_trace(first)
            return from_frame(first)
        self._output.join(OUTPUT_SEC)
        self._log_rest(None, all_of_it=True)
        what = f"the executor's process {self._how_it_ended()} before it was ready"
        if self._why or self._guard.returncode < 0 or self._guard.returncode > 128:
            return HostCrashedError(what)
        last = f": {self._tail[-1]}" if self._tail else ""
        return ConfigError(f"{what}, under {self._python}{last}", hint="`mloc doctor` examines the interpreters")

    def _how_it_ended(self) -> str:
        return self._why or how_it_ended(self._guard.returncode)

    def _log_rest(self, call: Call | None, *, all_of_it: bool) -> None:
        """Log what the host said last: `all_of_it`, or what has not been logged yet."""
        level = logging.INFO
        if all_of_it or not logger.isEnabledFor(level):
            level = logging.WARNING if not logger.isEnabledFor(level) else level
            for line in list(self._tail):
                logger.log(level, "%s", line)
        while call is not None and (frame := call.next(0)) is not None:
            if frame["type"] == "line":
                logger.info("%s", frame["text"])

    def _thread(self, name: str, work: Callable[[], None]) -> threading.Thread:
        thread = threading.Thread(target=work, name=f"mloc-host-{name}", daemon=True)
        thread.start()
        return thread

    def _write_frames(self) -> None:
        """In a thread of its own, because a host that is stopped or busy reads nothing."""
        with contextlib.suppress(OSError):  # that it is gone is seen by the reader
            while (frame := self._outbox.get()) is not None:
                self._wire.send(frame)

    def _read_frames(self) -> None:
        while (frame := self._wire.receive()) is not None:
            if "id" not in frame:
                self._begin(frame)
                continue
            with self._lock:
                call = self._calls.get(frame["id"])
            if call is not None:
                call.put(frame)
        self.kill()  # what it has left, before its devices go to another
        self._begin({"type": "gone"})
        with self._lock:
            waiting = list(self._calls.values())
        for call in waiting:
            call.put({"type": "gone"})

    def _begin(self, frame: Frame) -> None:
        if self._first is None:
            self.pid = frame.get("pid", 0)
            self._first = frame
            self._first_came.set()

    def _read_output(self) -> None:
        assert self._guard.stdout is not None
        with self._guard.stdout as output:
            for line in lines(lambda: os.read(output.fileno(), 65_536)):
                with self._lock:
                    calls = dict(self._calls)
                if (task := marked_end(line)) is not None:
                    if task in calls:
                        calls[task].said_all.set()
                    continue
                self._tail.append(line)
                if len(calls) == 1 and not self._concurrent:
                    next(iter(calls.values())).put({"type": "line", "text": line})
                else:
                    logger.info("%s", line)


def _log_trace(frame: Frame) -> None:
    for line in frame["trace"].splitlines():
        logger.error("%s", line)
