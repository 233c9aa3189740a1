"""Ends shards that may not go on: those of a cancelled run, and those past their `timeout`."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Iterator
from typing import Any

import psutil
from celery import bootsteps

from mloc_tasks.errors import IllegalTransitionError, MlocError, StaleAttemptError
from mloc_tasks.executors.registry import executor_class
from mloc_tasks.ledger import Failure, Ledger, StageJob, State
from mloc_tasks.settings import Settings, get_settings
from mloc_tasks.signatures import shard_name
from mloc_tasks.worker.taken import active

logger = logging.getLogger("mloc.worker")

LOOK_INTERVAL_SEC = 1.0
HOST_ENDS_SEC = 5.0  # beyond the grace, until a pool child has ended its host


class Warden(bootsteps.StartStopStep):  # type: ignore[misc]  # celery ships no types
    """Looks at the running shards and at the pool every second, from the worker's main process.

    What must end gets SIGTERM with all processes that it started, and SIGKILL after `MLOC_CANCEL_GRACE_SEC`. The main
    process then finds a lost pool child and sends the message again, whose claim the ledger answers: cancelled, or
    failed by timeout. In a pool of threads nothing can be killed: there a shard ends by itself, and its commit is
    refused. A child that was lost is noticed by looking, too: Celery's pool does so every five seconds only, and the
    pipe whose end tells of a child's death at once is held open by the children that were forked after it.
    """

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **options: Any) -> None:
        super().__init__(consumer, **options)
        self._timers: list[Any] = []
        self._rounds: Rounds | None = None

    def start(self, consumer: Any) -> None:
        self._rounds = self._rounds or Rounds(get_settings())
        looks = (self._rounds.look, consumer.pool.maintain_pool)
        self._timers = [consumer.timer.call_repeatedly(LOOK_INTERVAL_SEC, look) for look in looks]

    def stop(self, consumer: Any) -> None:
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()

    shutdown = stop


class Rounds:
    """What the warden remembers from one look to the next: which processes were told to end, and until when."""

    def __init__(self, settings: Settings) -> None:
        self._ledger = Ledger.connect(settings)
        self._grace_sec = settings.cancel_grace_sec
        self._noticed: dict[str, float] = {}  # requests that a pool child is to end by itself, and since when
        self._ending: dict[int, tuple[float, list[psutil.Process]]] = {}

    def look(self) -> None:
        """One round. A ledger that does not answer is asked again in the next."""
        self._kill_the_late()
        running = active()
        for over in self._noticed.keys() - {request.id for request in running}:
            del self._noticed[over]
        for request in running:
            pid = request.worker_pid
            if pid is None or not request.time_start or pid in self._ending:
                continue
            try:
                reason = self._reason_to_end(request)
            except MlocError as error:
                logger.warning("cannot look after running shards: %s", error)
                return
            if reason and pid != os.getpid():
                logger.warning("ending %s: %s", request.id, reason)
                self._end(pid)

    def _reason_to_end(self, request: Any) -> str:
        name = shard_name(request.name, request.args)
        if name is None:
            return ""
        run_id, stage, shard = name
        job = self._ledger.stage_job(run_id, stage)
        if self._ledger.cancel_requested(run_id):
            return "" if self._ends_by_itself(request, job) else f"run {run_id} was cancelled"
        if job.timeout is None or time.time() - request.time_start < job.timeout:
            return ""
        if self._ends_by_itself(request, job):
            return ""
        self._record_timeout(run_id, stage, shard, job.timeout)
        return f"{stage}[{shard}] has run for more than its timeout of {job.timeout:g} seconds"

    def _ends_by_itself(self, request: Any, job: StageJob) -> bool:
        """Whether to leave it to the pool child, which ends the host that the executor runs in and lives on."""
        if executor_class(job.document["task_type"]).light:
            return False
        if request.worker_pid == os.getpid():  # a thread, which cannot be ended, and may have waited in line for a host
            return True
        noticed = self._noticed.setdefault(request.id, time.monotonic())
        return time.monotonic() - noticed < self._grace_sec + HOST_ENDS_SEC

    def _record_timeout(self, run_id: str, stage: str, shard: str, timeout: float) -> None:
        """Before the process ends, so that the message that comes back is answered with the failure."""
        record = self._ledger.shard(run_id, stage, shard)
        job = self._ledger.stage_job(run_id, stage)
        if record is None or record.state is not State.RUNNING:
            return
        failure = Failure(
            message=f"timed out: still running after {timeout:g} seconds",
            type="TimeoutError",
            hint="raise spec.timeout, or split the work with spec.parallel",
            stage=stage,
            shard=shard,
            attempt=record.attempt,
            worker=record.worker,
        )
        whole = job.ends_with(shard)
        with contextlib.suppress(StaleAttemptError, IllegalTransitionError):  # it ended in this very moment
            self._ledger.commit(
                run_id, stage, shard, attempt=record.attempt, state=State.FAILED, whole=whole, error=failure
            )

    def _end(self, pid: int) -> None:
        processes = list(process_tree(pid))
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.terminate()
        self._ending[pid] = (time.monotonic() + self._grace_sec, processes)

    def _kill_the_late(self) -> None:
        for pid, (deadline, processes) in list(self._ending.items()):
            alive = [process for process in processes if process.is_running()]
            if not alive:
                del self._ending[pid]
            elif time.monotonic() > deadline:
                for process in alive:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        process.kill()


def process_tree(pid: int) -> Iterator[psutil.Process]:
    """A process and all that it started, directly or not, the latest first."""
    with contextlib.suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        yield from reversed(root.children(recursive=True))
        yield root
