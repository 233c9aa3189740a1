"""The processes that break: a Valkey with AOF and three workers, all of them marked so that strays can be found."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import psutil
import redis

from mloc_tasks.errors import BrokerError
from mloc_tasks.ledger import Ledger
from mloc_tasks.settings import get_settings, reset_settings
from scheduler.embedded import LocalWorker, PrivateValkey
from tests.chaos.s3_proxy import FaultyProxy

TIMEOUT_SEC = 2.5  # visibility timeout
DEADLINE_SEC = 90.0
POLL_SEC = 0.05
MARK = "MLOC_CHAOS_MARK"
PLUGINS = Path(__file__).parents[1] / "plugins"
ROOT = Path(__file__).parents[2]

T = TypeVar("T")


class Stack:
    """A broker and `workers` workers of `concurrency` children each, in a folder that goes with it.

    The environment of this process leads to them while it is entered. `proxy` is what stands before its store.
    """

    def __init__(
        self,
        *,
        workers: int = 3,
        concurrency: int = 2,
        environment: Mapping[str, str] | None = None,
        proxy: FaultyProxy | None = None,
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="mloc-chaos-", dir="/tmp"))  # a socket's path must be short
        self.results = self.folder / "results"
        self.valkey = PrivateValkey(self.folder, options=("--appendonly", "yes", "--appendfsync", "always"))
        self.names = tuple(f"w{number}@chaos" for number in range(1, workers + 1))
        self.concurrency = concurrency
        self.proxy = proxy
        self.mark = uuid.uuid4().hex
        self.workers: dict[str, LocalWorker] = {}
        self._given = dict(environment or {})
        self._before: dict[str, str | None] = {}

    def __enter__(self) -> Self:
        settings = {
            "REDIS_URL": self.valkey.url,
            "RESULTS_DIR": str(self.results),
            "MLOC_VISIBILITY_TIMEOUT_SEC": str(TIMEOUT_SEC),
            "HEARTBEAT_INTERVAL_SEC": "0.5",
            "HEARTBEAT_TTL_SEC": "2",
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(PLUGINS), os.environ.get("PYTHONPATH", "")]),
            "PYTHONFAULTHANDLER": "1",  # SIGABRT writes the stacks of a process that hangs into its log
            MARK: self.mark,
            **self._given,
        }
        self._before = {name: os.environ.get(name) for name in settings}
        os.environ.update(settings)
        sys.path.insert(0, str(PLUGINS))
        reset_settings()
        try:
            self.valkey.start()
            self.ledger = Ledger.connect(get_settings())
            for name in self.names:
                self.start_worker(name)
            self.wait_for_workers()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        for worker in self.workers.values():
            self.signal_group(worker, signal.SIGKILL)
            worker.stop(idle=True)
        self.valkey.stop()
        sys.path.remove(str(PLUGINS))
        for name, value in self._before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        reset_settings()
        shutil.rmtree(self.folder, ignore_errors=True)

    # Workers

    def start_worker(self, name: str) -> None:
        """Start the worker of that name, where it does not live."""
        if self.lives(name):
            return
        log = self.log(name)
        log.parent.mkdir(exist_ok=True)
        worker = LocalWorker(("cpu",), log=log, concurrency=self.concurrency, options=("-n", name))
        worker.start()
        self.workers[name] = worker

    def lives(self, name: str) -> bool:
        """Whether a worker's main process is there, also when it is stopped."""
        worker = self.workers.get(name)
        if worker is None:
            return False
        try:
            return psutil.Process(worker.pid).status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    def log(self, name: str) -> Path:
        return self.folder / name.partition("@")[0] / "worker.log"

    def wait_for_workers(self) -> None:
        """Until every worker has its lease: it takes messages then."""
        leases = [self.ledger.keys.lease(name) for name in self.names]
        self.until(lambda: self.ledger.client.exists(*leases) == len(leases), "all workers live")

    def signal_group(self, worker: LocalWorker, number: signal.Signals) -> None:
        """Send a signal to a worker and its children, where they still live."""
        try:
            os.killpg(worker.pid, number)
        except ProcessLookupError:
            return

    def children(self, name: str) -> list[psutil.Process]:
        """The pool children of a worker; none where it has ended."""
        try:
            return psutil.Process(self.workers[name].pid).children()
        except psutil.NoSuchProcess:
            return []

    def strays(self) -> list[str]:
        """Processes of this stack that belong to none of its workers: not started by one, nor by what it started."""
        known = {self.valkey.pid, os.getpid()}
        for name, worker in self.workers.items():
            if self.lives(name):
                known |= {worker.pid, *(each.pid for each in psutil.Process(worker.pid).children(recursive=True))}
        return [_shown(process) for process in marked(self.mark) if process.pid not in known]

    # Ledger

    def ask(self, question: Callable[[], T], *, deadline_sec: float = DEADLINE_SEC) -> T:
        """The answer of the ledger, also while its Redis restarts."""
        end = time.monotonic() + deadline_sec
        while True:
            try:
                return question()
            except (BrokerError, redis.exceptions.RedisError):
                if time.monotonic() > end:
                    raise
                time.sleep(POLL_SEC)

    def until(self, condition: Callable[[], Any], what: str, *, deadline_sec: float = DEADLINE_SEC) -> None:
        """Wait for a condition of the ledger or the processes. Raises AssertionError at the deadline."""
        end = time.monotonic() + deadline_sec
        while not self.ask(condition):
            if time.monotonic() > end:
                raise AssertionError(f"after {deadline_sec:g} s not: {what}")
            time.sleep(POLL_SEC)

    def committed(self, run_id: str) -> int:
        """Shards of the run that are done."""
        return sum(stage.shards_done for stage in self.ledger.stages(run_id))


def marked(mark: str) -> Iterator[psutil.Process]:
    """Processes that were started, by whomever, with a stack's mark in their environment."""
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                yield process
        except psutil.Error:
            continue


def _shown(process: psutil.Process) -> str:
    try:
        return f"{process.pid}: {' '.join(process.cmdline())[:200]}"
    except psutil.Error:
        return str(process.pid)
