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
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from mloc_tasks import errors
from mloc_tasks.errors import (
    AttemptCancelledError,
    AttemptTimeoutError,
    ExecutionError,
    HostCrashedError,
    MlocError,
    StaleAttemptError,
)
from mloc_tasks.executors.base import Reporter
from mloc_tasks.host.frames import Frame, Wire

logger = logging.getLogger("mloc.host")

HERE = Path(__file__).parent
START_SEC = 120.0  # to import an executor's module, from a slow disk
LOOK_SEC = 0.5  # between two looks at whether a task is still wanted
TAIL_LINES = 20
LINE_CHARS = 500


class HostProcess:
    """A host, started by the constructor; `run` blocks until it is ready.

    Args:
        target: `module:Class` of its executor.
        python: the interpreter it runs under.
        env: its whole environment.
        concurrent: whether the executor takes several tasks at once.
    """

    def __init__(self, target: str, *, python: str, env: Mapping[str, str], concurrent: bool) -> None:
        self._numbers = itertools.count(1)
        self._calls: dict[int, queue.SimpleQueue[Frame]] = {}
        self._lock = threading.Lock()
        self._concurrent = concurrent
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._ready: queue.SimpleQueue[Frame] = queue.SimpleQueue()
        self._started = False
        self._rows_left: dict[int, int] = {}  # by task
        self.rows_at_once: int | None = None
        self.gone = threading.Event()
        self.pid = 0  # known once it is ready
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
                env=dict(env),
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
        self._output = threading.Thread(target=self._read_output, name="mloc-host-output", daemon=True)
        self._output.start()
        threading.Thread(target=self._read_frames, name="mloc-host-frames", daemon=True).start()

    @property
    def tail(self) -> str:
        """The last lines that it wrote to its output."""
        return "\n".join(self._tail)

    @property
    def rows_left(self) -> int:
        """Rows of its tasks that are not finished."""
        return sum(list(self._rows_left.values()))

    def run(self, task: Frame, report: Reporter, look: Callable[[], None], *, grace_sec: float) -> dict[str, Any]:
        """Have the host do a task; gives its result, less what lies in its output directory.

        `look` is called at least every half second from this thread; what it raises ends the task, or the whole host
        where it does not end within `grace_sec`, and is raised here. Raises what the executor raised, and
        `HostCrashedError` when the process ended in the middle.
        """
        number = next(self._numbers)
        frames: queue.SimpleQueue[Frame] = queue.SimpleQueue()
        with self._lock:
            self._calls[number] = frames
        rows = task.get("rows")
        self._rows_left[number] = rows["count"] if rows else 0
        try:
            try:
                self._wait_until_ready(frames, look)
                self._send({**task, "id": number}, frames)
            except (AttemptCancelledError, AttemptTimeoutError, StaleAttemptError):
                self.end(grace_sec=grace_sec)
                raise
            while True:
                try:
                    look()
                except BaseException:
                    self._end_task(number, frames, grace_sec)
                    raise
                frame = _next(frames)
                if frame is not None and (result := self._taken(frame, frames, report)) is not None:
                    return result
        finally:
            with self._lock:
                self._calls.pop(number, None)
            self._rows_left.pop(number, None)

    def _end_task(self, number: int, frames: queue.SimpleQueue[Frame], grace_sec: float) -> None:
        """End one task: a concurrent host is asked to, because it serves others; any other one is ended."""
        if not self._concurrent:
            self.end(grace_sec=grace_sec)
            return
        self._send({"type": "cancel", "id": number}, frames)
        deadline = time.monotonic() + grace_sec
        while time.monotonic() < deadline:
            frame = _next(frames)
            if frame is not None and frame["type"] in ("result", "error", "gone"):
                return
        logger.warning("a task did not end within %g s of being cancelled; its process is ended", grace_sec)
        self.kill()

    def _send(self, frame: Frame, frames: queue.SimpleQueue[Frame]) -> None:
        try:
            self._wire.send(frame)
        except OSError:
            self._crashed(frames)

    def stop(self) -> None:
        """Ask it to end when it is idle; does not wait."""
        with contextlib.suppress(OSError):
            self._wire.send({"type": "stop"})

    def end(self, *, grace_sec: float) -> None:
        """SIGTERM to it and all that it started, SIGKILL after the grace; returns when all of it is gone."""
        if self._guard.poll() is None:
            self._guard.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._guard.wait(grace_sec)
        self.kill()

    def kill(self) -> None:
        """End it and all that it started at once; returns when all of it is gone."""
        with self._lock:
            if self._life >= 0:
                os.close(self._life)  # its guard does the rest
                self._life = -1
        self._guard.wait()
        if self.pid and self._guard.returncode == -signal.SIGKILL:  # the guard itself was killed, the host with it
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
        self._wire.close()
        self.gone.set()

    def _wait_until_ready(self, frames: queue.SimpleQueue[Frame], look: Callable[[], None]) -> None:
        deadline = time.monotonic() + START_SEC
        while not self._started:
            look()
            frame = _next(self._ready)
            if frame is None:
                if time.monotonic() > deadline:
                    self.kill()
                    raise HostCrashedError(f"the executor's process was not ready within {START_SEC:g} s")
                continue
            self._ready.put(frame)  # for the others who wait
            if frame["type"] == "ready":
                self.pid, self._started = frame["pid"], True
            elif frame["type"] == "failed":
                _raise(frame)
            else:
                self._crashed(frames)

    def _taken(self, frame: Frame, frames: queue.SimpleQueue[Frame], report: Reporter) -> dict[str, Any] | None:
        """What a frame about a task leads to: a result, an exception, or a report."""
        kind = frame["type"]
        if kind == "result":
            result: dict[str, Any] = frame["result"]
            return result
        if kind == "progress":
            report.progress(frame["done"], frame["total"])
            self.rows_at_once = frame["at_once"]
            if frame["total"] is not None:
                self._rows_left[frame["id"]] = frame["total"] - frame["done"]
        elif kind == "log":
            report.log(frame["message"], level=frame["level"])
        elif kind == "metrics":
            report.metrics(frame["step"], frame["values"])
        elif kind == "line":
            logger.info("%s", frame["text"])
        elif kind == "error":
            if frame["broken"]:
                self.stop()
                self.gone.set()
            _raise(frame)
        elif kind == "gone":
            self._crashed(frames)
        return None

    def _crashed(self, frames: queue.SimpleQueue[Frame]) -> NoReturn:
        """Log, from the thread of the attempt, what the process said last, and raise how it ended."""
        self._guard.wait()
        self._output.join(timeout=1)
        if self._concurrent or not self._started:  # else its lines came one by one
            for line in list(self._tail):
                logger.info("%s", line)
        while not frames.empty():
            frame = frames.get()
            if frame["type"] == "line":
                logger.info("%s", frame["text"])
        raise HostCrashedError(f"the executor's process {_how_it_ended(self._guard.returncode)}")

    def _read_frames(self) -> None:
        while (frame := self._wire.receive()) is not None:
            if "id" not in frame:
                self._ready.put(frame)
                continue
            with self._lock:
                frames = self._calls.get(frame["id"])
            if frames is not None:
                frames.put(frame)
        self.gone.set()
        self._ready.put({"type": "gone"})
        with self._lock:
            waiting = list(self._calls.values())
        for frames in waiting:
            frames.put({"type": "gone"})

    def _read_output(self) -> None:
        assert self._guard.stdout is not None
        with self._guard.stdout as output:
            for raw in output:
                text = raw.decode("utf-8", "replace").rstrip()[:LINE_CHARS]
                if not text:
                    continue
                self._tail.append(text)
                with self._lock:
                    calls = list(self._calls.values())
                if len(calls) == 1 and not self._concurrent:
                    calls[0].put({"type": "line", "text": text})
                else:
                    logger.info("%s", text)


def _next(frames: queue.SimpleQueue[Frame]) -> Frame | None:
    try:
        return frames.get(timeout=LOOK_SEC)
    except queue.Empty:
        return None


def _how_it_ended(code: int | None) -> str:
    if code is None or code == 0:
        return "ended in the middle of a task"
    number = -code if code < 0 else code - 128
    if number > 0:
        name = signal.Signals(number).name if number in {each.value for each in signal.Signals} else f"signal {number}"
        why = ", perhaps by the kernel for want of memory" if name == "SIGKILL" else ""
        return f"was ended by {name}{why}"
    return f"ended with exit code {code} in the middle of a task"


def _raise(frame: Frame) -> NoReturn:
    """Raise an executor's error as it was, or, where its class is not ours, as one that carries the class's name."""
    message, hint = frame["message"], frame["hint"]
    found = getattr(errors, frame["class"], None) if frame["known"] else None
    if isinstance(found, type) and issubclass(found, MlocError):
        raise found(message, hint=hint)
    error = ExecutionError(message if frame["known"] else f"{frame['class']}: {message}", hint=hint)
    error.kind = frame["class"]
    error.retryable = frame["retryable"]  # type: ignore[misc]  # of this one
    raise error


def environment(python: str, extra: Mapping[str, str], *, path: Sequence[str] = tuple(sys.path)) -> dict[str, str]:
    """A host's environment: this process's, less what is secret or the worker's alone, and what makes it find plugins.

    Under this process's own interpreter it sees the modules that this process sees.
    """
    kept = {name: value for name, value in os.environ.items() if name not in WORKERS_ALONE}
    if python == sys.executable:
        kept["PYTHONPATH"] = os.pathsep.join(entry or os.getcwd() for entry in path)
    else:
        kept.pop("PYTHONPATH", None)
        kept.pop("PYTHONHOME", None)
    return {**kept, "PYTHONUNBUFFERED": "1", **extra}


# What leads to the broker and the ledger, which executors know nothing of.
WORKERS_ALONE = frozenset({"REDIS_URL", "MLOC_BROKER_URL", "CELERY_BROKER_URL"})
