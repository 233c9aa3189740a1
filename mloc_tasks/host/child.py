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
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mloc_tasks.errors import ConfigError, ExecutionError, MlocError
from mloc_tasks.executors.base import Executor, Item, Task, write_json
from mloc_tasks.host.frames import Frame, Wire

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
    wire = Wire(socket.socket(fileno=descriptor))
    try:
        executor = _load(target)
    except Exception as error:  # the boundary: whatever its import raises is told
        wire.send({"type": "failed", **_described(error)})
        return
    wire.send({"type": "ready", "pid": os.getpid()})
    host = Host(wire, executor)
    threading.Thread(target=host.listen, name="mloc-listen", daemon=True).start()
    host.work()
    executor.close()
    wire.close()


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
        self._tasks: dict[int, Task] = {}
        self._waiting: queue.SimpleQueue[Frame | None] = queue.SimpleQueue()

    def listen(self) -> None:
        """Take frames until the owner is gone; it may have left in the middle of a task, which then ends here too."""
        while (frame := self._wire.receive()) is not None:
            if frame["type"] == "task":
                if self._executor.concurrent:
                    threading.Thread(target=self._run, args=(frame,), name=f"task-{frame['id']}", daemon=True).start()
                else:
                    self._waiting.put(frame)
            elif frame["type"] == "cancel" and (task := self._tasks.get(frame["id"])) is not None:
                task.cancelled.set()
            elif frame["type"] == "stop":
                self._waiting.put(None)
        if self._tasks:
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
            self._wire.send({"type": "result", "id": number, "result": self._result(frame, report)})
        except (SystemExit, KeyboardInterrupt) as error:
            what = f"sys.exit({error.code!r})" if isinstance(error, SystemExit) else "KeyboardInterrupt"
            ended = ExecutionError(
                f"the executor ended its process by {what}", hint="raise ExecutionError with the reason instead"
            )
            self._fail(number, ended)
        except Exception as error:  # the boundary: whatever an executor raises is told
            if not isinstance(error, MlocError):
                traceback.print_exc()
            self._fail(number, error)
        finally:
            self._tasks.pop(number, None)

    def _result(self, frame: Frame, report: WireReporter) -> dict[str, Any]:
        from mloc_tasks.spec import StageSpec

        out_dir = Path(frame["out_dir"])
        rows = frame["rows"]
        task = Task(
            frame["document"],
            spec=StageSpec.model_validate(frame["document"]["spec"]),
            report=report,
            inputs=None if rows is None else FileRows(Path(rows["path"]), rows["start"], rows["count"]),
            cache_dir=Path(frame["cache_dir"]),
            **frame["names"],
        )
        self._tasks[frame["id"]] = task
        result = self._executor.run(task, out_dir)
        if not (out_dir / RESPONSES).exists():
            write_json(out_dir / RESPONSES, result)
        return {name: result[name] for name in RESULT_FIELDS if name in result}

    def _fail(self, number: int, error: BaseException) -> None:
        broken = bool(getattr(self._executor, "broken", False))
        self._wire.send({"type": "error", "id": number, "broken": broken, **_described(error)})


class FileRows:
    """A shard's rows, one JSON value a line; each iteration reads them anew."""

    def __init__(self, path: Path, start: int, count: int) -> None:
        self._path = path
        self.start = start
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Item]:
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
        self._wire.send({"type": "progress", "id": self._number, "done": done, "total": total, "at_once": at_once})

    def log(self, message: str, *, level: str = "info") -> None:
        self._wire.send({"type": "log", "id": self._number, "message": message, "level": level})

    def metrics(self, step: int, values: dict[str, float]) -> None:
        self._wire.send({"type": "metrics", "id": self._number, "step": step, "values": values})


def _described(error: BaseException) -> Frame:
    """An error for the wire: the class's name, the message, what to do, whether another attempt may help."""
    if isinstance(error, ImportError) and not isinstance(error, MlocError):
        error = ConfigError(f"the executor cannot be imported under {sys.executable}: {error}")
    return {
        "class": type(error).__name__,
        "known": isinstance(error, MlocError),
        "message": str(error),
        "hint": getattr(error, "hint", ""),
        "retryable": getattr(error, "retryable", False)
        or isinstance(error, (ConnectionError, TimeoutError, MemoryError)),
    }
