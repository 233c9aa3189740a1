"""A pool of hosts in this process, attempts at its tasks in threads, and nothing left behind when a test ends."""

from __future__ import annotations

import json
import logging
import os
import queue
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from mloc_tasks.cpus import usable_cpus
from mloc_tasks.host.devices import Devices
from mloc_tasks.host.pool import HostKey, HostPool
from tests.plugins.mloc_test_script import ScriptExecutor
from tests.waiting import wait_until

WAIT_SEC = 120.0
GRACE_SEC = 0.3
TEST = "MLOC_TEST_OF_HOSTS"  # in the environment of all that a test starts: which test


@dataclass
class Attempt:
    """A task that runs in a thread: what it reports, and how it ends."""

    out_dir: Path
    reports: queue.SimpleQueue[tuple[Any, ...]] = field(default_factory=queue.SimpleQueue)
    stopped_by: BaseException | None = None
    future: Future[dict[str, Any]] = field(default_factory=Future)
    log: list[str] = field(default_factory=list)

    def look(self) -> None:
        if self.stopped_by is not None:
            raise self.stopped_by

    def stop(self, reason: BaseException) -> None:
        """Have its next look raise this."""
        self.stopped_by = reason

    def progress(self, done: int, total: int | None = None) -> None:
        self.reports.put(("progress", done, total))

    def log_line(self, message: str, *, level: str = "info") -> None:
        self.reports.put(("log", message, level))

    def metrics(self, step: int, values: dict[str, float]) -> None:
        self.reports.put(("metrics", step, values))

    def report(self) -> tuple[Any, ...]:
        """The next report, waited for."""
        return self.reports.get(timeout=WAIT_SEC)

    def result(self) -> dict[str, Any]:
        """What its responses.json holds, once it is over; raises how it failed."""
        self.future.result(WAIT_SEC)
        document: dict[str, Any] = json.loads((self.out_dir / "responses.json").read_text())
        return document

    def error(self) -> BaseException:
        """How it failed."""
        error = self.future.exception(WAIT_SEC)
        assert error is not None
        return error


class _Reporter:
    def __init__(self, attempt: Attempt) -> None:
        self.progress, self.log, self.metrics = attempt.progress, attempt.log_line, attempt.metrics


class _ThreadLog(logging.Handler):
    """What this thread logs, as an attempt's log."""

    def __init__(self, lines: list[str], thread: int) -> None:
        super().__init__()
        self._lines, self._thread = lines, thread

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self._thread:
            self._lines.append(record.getMessage())


@dataclass
class Hosts:
    """A pool, and threads that run attempts on it."""

    pool: HostPool
    folder: Path
    threads: ThreadPoolExecutor

    def start(
        self,
        *do: list[Any],
        executor: type[ScriptExecutor] = ScriptExecutor,
        key: str = "model",
        gpus: int = 0,
        room: int = 0,
        alone: bool = False,
        rows: dict[str, Any] | None = None,
        grace_sec: float = GRACE_SEC,
        **spec: Any,
    ) -> Attempt:
        """Begin an attempt that does these steps."""
        out_dir = self.folder / uuid.uuid4().hex
        out_dir.mkdir()
        attempt = Attempt(out_dir)
        document = {"model": key}
        task = {
            "type": "task",
            "document": {"spec": {"task_type": executor.name, "folder": str(out_dir), "do": do, **spec}},
            "rows": rows,
            "out_dir": str(out_dir),
            "cache_dir": str(self.folder),
            "names": {"run_id": "r", "stage": "s"},
        }

        def run() -> dict[str, Any]:
            logger = logging.getLogger("mloc.host")
            handler = _ThreadLog(attempt.log, threading.get_ident())
            logger.addHandler(handler)
            try:
                host_key = HostKey.of(executor, document, gpus=gpus)
                places = room or (64 if executor.concurrent else 1)
                with self.pool.host(executor, host_key, room=places, alone=alone, look=attempt.look) as held:
                    return held.process.run(task, _Reporter(attempt), attempt.look, grace_sec=grace_sec)
            finally:
                logger.removeHandler(handler)

        attempt.future = self.threads.submit(run)
        return attempt

    def run(self, *do: list[Any], **options: Any) -> dict[str, Any]:
        """An attempt from its beginning to its end; its result."""
        return self.start(*do, **options).result()


StartPool = Callable[..., Hosts]


@pytest.fixture
def pool(
    tmp_path: Path, of_this_test: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> Iterator[StartPool]:
    """Makes pools; all are closed with the test, which fails when one leaves a process behind."""
    caplog.set_level(logging.INFO)  # as workers have it
    monkeypatch.setattr("mloc_tasks.host.process.OUTPUT_SEC", WAIT_SEC)  # no last line is lost on a busy machine
    made: list[Hosts] = []

    def make(
        *, gpus: tuple[str, ...] = (), idle_sec: float = 600, grace_sec: float = GRACE_SEC, **options: Any
    ) -> Hosts:
        devices = Devices(gpus=gpus, cpus=usable_cpus())
        hosts = HostPool(devices, idle_sec=idle_sec, grace_sec=grace_sec, **options)
        made.append(Hosts(hosts, tmp_path, ThreadPoolExecutor(32)))
        return made[-1]

    yield make
    for each in made:
        each.pool.close()
        each.threads.shutdown()
    wait_until(lambda: not processes_of(of_this_test))


@pytest.fixture
def hosts(pool: StartPool) -> Hosts:
    """A pool without GPUs, of one host at a time."""
    return pool()


@pytest.fixture
def of_this_test(monkeypatch: pytest.MonkeyPatch) -> str:
    """What marks all processes of this test in their environment."""
    mark = uuid.uuid4().hex
    monkeypatch.setenv(TEST, mark)
    return mark


def processes_of(mark: str) -> list[psutil.Process]:
    """The processes that a test has started, directly or not."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get(TEST) == mark:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found
