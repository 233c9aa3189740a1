"""The executor host itself: one executor object that serves its owner's tasks until it is told to stop."""

from __future__ import annotations

import importlib
import json
import logging
import os
import queue
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mloc_tasks.executors.base import Executor, Row, Task, write_json
from mloc_tasks.host.failures import to_frame
from mloc_tasks.host.frames import Frame, Wire
from mloc_tasks.host.output import mark_end
from mloc_tasks.spec import StageSpec

RESPONSES = "responses.json"
RESULT_FIELDS = ("ok", "model")  # of the result, for the owner; the rest lies in responses.json

logger = logging.getLogger("mloc.host")


def serve(descriptor: int, target: str) -> None:
    """Serve what comes over the socket `descriptor` with the executor `module:Class`, until the owner leaves."""
    logging.basicConfig(
        level=os.environ.get("LOG_LEVEL", "INFO"), stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s"
    )
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the owner
    if cpus := os.environ.get("MLOC_HOST_CPUS"):
        os.sched_setaffinity(0, {int(cpu) for cpu in cpus.split(",")})
    os.set_inheritable(descriptor, False)
    wire = Wire(socket.socket(fileno=os.dup(descriptor)))  # the other one closes with this process, after all else
    try:
        executor = _load(target)
    except Exception as error:  # the boundary: whatever its import raises is told
        wire.send({"type": "failed", **to_frame(error)})
        return
    wire.send({"type": "ready", "pid": os.getpid()})
    host = Host(wire, executor)
    threading.Thread(target=host.listen, name="mloc-listen", daemon=True).start()
    host.work()
    executor.close()
    wire.stop_receiving()


def _load(target: str) -> Executor:
    module, _, name = target.partition(":")
    found = getattr(importlib.import_module(module), name)
    executor: Executor = found()
    return executor


class Host:
    """Takes tasks off the wire. A concurrent executor gets a thread for each, any other one the main thread."""

    def __init__(self, wire: Wire, executor: Executor) -> None:
        self._wire = wire
        self._executor = executor
        self._cancels: dict[int, threading.Event] = {}  # of the tasks that are not over
        self._waiting: queue.SimpleQueue[Frame | None] = queue.SimpleQueue()

    def listen(self) -> None:
        """Take frames until the owner is gone; it may have left in the middle of a task, which then ends here too."""
        while (frame := self._wire.receive()) is not None:
            if frame["type"] == "task":
                self._cancels[frame["id"]] = threading.Event()
                if self._executor.concurrent:
                    threading.Thread(target=self._run, args=(frame,), name=f"task-{frame['id']}", daemon=True).start()
                else:
                    self._waiting.put(frame)
            elif frame["type"] == "cancel" and (cancelled := self._cancels.get(frame["id"])) is not None:
                cancelled.set()
            elif frame["type"] == "stop":
                self._waiting.put(None)
        if self._cancels:
            os._exit(0)
        self._waiting.put(None)

    def work(self) -> None:
        """Run what comes to the main thread; returns when the host is to end."""
        while (frame := self._waiting.get()) is not None:
            self._run(frame)

    def _run(self, frame: Frame) -> None:
        number: int = frame["id"]
        report = WireReporter(self._wire, number, self._executor)
        try:
            ended: Frame = {"type": "result", "result": self._result(frame, report)}
        except (Exception, SystemExit, KeyboardInterrupt) as error:  # the boundary: whatever an executor raises is told
            ended = {"type": "error", "broken": bool(getattr(self._executor, "broken", False)), **to_frame(error)}
        del self._cancels[number]
        mark_end(number)
        self._wire.send({**ended, "id": number})

    def _result(self, frame: Frame, report: WireReporter) -> dict[str, Any]:
        out_dir = Path(frame["out_dir"])
        rows = frame["rows"]
        task = Task(
            frame["document"],
            spec=StageSpec.model_validate(frame["document"]["spec"]),
            report=report,
            inputs=None if rows is None else FileRows(Path(rows["path"]), rows["start"], rows["count"]),
            cache_dir=Path(frame["cache_dir"]),
            checkpoint_dir=_path(frame, "checkpoint_dir"),
            resume_from=_path(frame, "resume_from"),
            **frame["names"],
        )
        task.cancelled = self._cancels[frame["id"]]
        result = self._executor.run(task, out_dir)
        if not (out_dir / RESPONSES).exists():
            write_json(out_dir / RESPONSES, result)
        return {name: result[name] for name in RESULT_FIELDS if name in result}


def _path(frame: Frame, name: str) -> Path | None:
    return Path(frame[name]) if frame.get(name) else None


class FileRows:
    """A shard's rows, one JSON value a line; each iteration reads them anew."""

    def __init__(self, path: Path, start: int, count: int) -> None:
        self._path = path
        self.start = start
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Row]:
        with self._path.open("rb") as lines:
            for line in lines:
                yield json.loads(line)


class WireReporter:
    """A `Reporter` whose receiver is the owner."""

    def __init__(self, wire: Wire, number: int, executor: Executor) -> None:
        self._wire = wire
        self._number = number
        self._executor = executor

    def progress(self, done: int, total: int | None = None) -> None:
        at_once = self._executor.rows_at_once
        self._wire.send({"type": "progress", "id": self._number, "done": int(done), "total": total, "at_once": at_once})

    def log(self, message: str, *, level: str = "info") -> None:
        self._wire.send({"type": "log", "id": self._number, "message": message, "level": level})

    def metrics(self, step: int, values: dict[str, float]) -> None:
        numbers = {name: float(value) for name, value in values.items()}  # a library's scalars are not JSON
        self._wire.send({"type": "metrics", "id": self._number, "step": step, "values": numbers})
