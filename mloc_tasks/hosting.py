"""Attempts whose executor runs in a host: what goes there, what comes back, and when it is to end."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import redis

from mloc_tasks import intake, warmth
from mloc_tasks.attempt import Attempt
from mloc_tasks.errors import AttemptCancelledError, AttemptTimeoutError, BrokerError, StaleAttemptError
from mloc_tasks.executors.base import Executor, InputSlice
from mloc_tasks.host.devices import my_devices
from mloc_tasks.host.frames import Frame
from mloc_tasks.host.pool import HostKey, HostPool
from mloc_tasks.ledger.connection import Client
from mloc_tasks.ledger.keys import Keys
from mloc_tasks.settings import get_settings
from mloc_tasks.warmth import warm_key
from mloc_tasks.worker.registry import forget_models, note_model
from mloc_tasks.workplace import Workplace, get_workplace

logger = logging.getLogger("mloc.attempt")

CONCURRENT_TASKS = 64  # at most in one host that takes several
WANTED_EVERY_SEC = 1.0  # is asked whether the attempt is still wanted
HOLDS_EVERY_SHARE = 0.5  # of the visibility timeout: whether its claim still stands
MODEL_SHOWN_SEC = 86_400.0  # at most; it is forgotten with its worker
ROWS_FILE = "rows.jsonl"


def run_hosted(
    attempt: Attempt,
    executor: Executor,
    document: dict[str, Any],
    *,
    rows: InputSlice | None,
    parts: bool,
    out_dir: Path,
    wanted: Collection[str] = (),
    look_too: Callable[[], None] = lambda: None,
    checkpoint_dir: Path | None = None,
    resume_from: Path | None = None,
    rows_before: int = 0,
    failed_before: int = 0,
) -> dict[str, Any]:
    """Have a host run the executor over `rows`; gives what the result names, the rest lies in `out_dir`.

    `look_too` is called twice a second meanwhile; the arguments from `checkpoint_dir` on are those of the `Task`.

    Raises what the executor raised, and `HostCrashedError`, `AttemptCancelledError`, `AttemptTimeoutError`,
    `StaleAttemptError`.
    """
    place, job = attempt.place, attempt.job
    watch = Watch(attempt)

    def look() -> None:
        watch.look()
        look_too()

    gpus = job.requirement.gpus.count if job.requirement.gpus else 0
    key = HostKey.of(type(executor), document, gpus=gpus)
    room = CONCURRENT_TASKS if executor.concurrent else 1
    with place.scratch(job.run_id) as folder:
        task: Frame = {
            "type": "task",
            "document": {**job.header, "spec": document},
            "rows": None if rows is None else _write_rows(rows, folder / ROWS_FILE),
            "out_dir": str(out_dir),
            "cache_dir": str(place.settings.cache_dir.expanduser()),
            "checkpoint_dir": None if checkpoint_dir is None else str(checkpoint_dir),
            "resume_from": None if resume_from is None else str(resume_from),
            "names": _names(attempt)
            | {
                "parts": parts,
                "wanted": sorted(wanted),
                "rows_before": rows_before,
                "failed_before": failed_before,
            },
        }
        name = (job.run_id, job.stage, attempt.record.shard)
        intake.wait(name)
        with hosts().host(type(executor), key, room=room, alone=attempt.alone, look=look) as held:
            watch.start()
            intake.place(name)
            result = held.process.run(task, attempt.report, look, grace_sec=place.settings.cancel_grace_sec)
            if executor.keeps_model and executor.reusable and isinstance(result.get("model"), str):
                _models.show(attempt.record.worker, held.process.pid, result["model"], warm_key(job.document))
            return result


def leave_to_warm(place: Workplace, run_id: str, stage: str, *, task_id: str, worker: str) -> bool:
    """Whether to put a shard's message back for a worker that holds its model; see `mloc_tasks.warmth`."""
    most_sec = place.settings.warm_wait_sec
    if not most_sec:
        return False
    try:
        job = place.ledger.stage_job(run_id, stage)
    except LookupError:
        return False
    key = warm_key(job.document)
    if key is None:
        return False
    client, keys = place.ledger.client, place.ledger.keys
    left = not _models.holds(key) and warmth.leave(
        client, keys, worker=worker, key=key, queue=job.queue, task_id=task_id, most_sec=most_sec
    )
    if not left:
        warmth.take(client, keys, key, task_id)
    return left


class Watch:
    """Whether an attempt is still wanted; `look` raises when it is not."""

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt
        self._timeout = attempt.job.timeout
        self._started: float | None = None
        self._next_wanted = attempt.begun + WANTED_EVERY_SEC
        self._holds_every = attempt.place.settings.visibility_timeout_sec * HOLDS_EVERY_SHARE
        self._next_holds = attempt.begun + self._holds_every

    def start(self) -> None:
        """The host is there: from now on the stage's `timeout` counts. Waiting for it in line did not."""
        self._started = time.monotonic()

    def look(self) -> None:
        now = time.monotonic()
        if self._timeout is not None and self._started is not None and now - self._started > self._timeout:
            raise AttemptTimeoutError(
                f"timed out: still running after {self._timeout:g} seconds",
                hint="raise spec.timeout, or split the work with spec.parallel",
            )
        if now < self._next_wanted:
            return
        self._next_wanted = now + WANTED_EVERY_SEC
        attempt = self._attempt
        job, ledger = attempt.job, attempt.place.ledger
        try:
            if ledger.cancel_requested(job.run_id):
                raise AttemptCancelledError(f"run {job.run_id} was cancelled")
            if now >= self._next_holds:
                self._next_holds = now + self._holds_every
                if not ledger.holds(job.run_id, job.stage, attempt.record.shard, attempt=attempt.record.attempt):
                    raise StaleAttemptError(f"{attempt.prefix}: a newer attempt has taken over; this one is ended")
        except BrokerError as error:
            logger.warning("%s goes on, but cannot ask whether it is still wanted: %s", attempt.prefix, error)


@lru_cache(maxsize=1)
def hosts() -> HostPool:
    """This process's hosts."""
    settings = get_settings()
    return HostPool(
        my_devices(),
        idle_sec=settings.host_idle_sec,
        cpu_hosts=settings.cpu_hosts,
        grace_sec=settings.cancel_grace_sec,
        on_change=lambda: _models.forget_all_but(held.process.pid for held in hosts().live()),
    )


@dataclass(frozen=True, slots=True)
class _Shown:
    worker: str
    warm_key: str | None


class _Models:
    """What this process's hosts hold, as `mloc workers` shows it and as other workers leave shards to it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._shown: dict[int, _Shown] = {}  # by the host's process id

    def holds(self, key: str) -> bool:
        return any(shown.warm_key == key for shown in list(self._shown.values()))

    def show(self, worker: str, pid: int, model: str, key: str | None) -> None:
        with self._lock:
            if pid in self._shown:
                return
            self._shown[pid] = _Shown(worker, key)
        client, keys = _redis()
        try:
            note_model(client, keys, worker, holder=self._holder(pid), model=model, ttl_sec=MODEL_SHOWN_SEC)
            if key is not None:
                warmth.publish(client, keys, worker, key)
        except redis.exceptions.RedisError as error:  # the result is there, and counts
            logger.warning("that this worker holds %s is not shown: %s", model, error)

    def forget_all_but(self, live: Iterable[int]) -> None:
        kept = set(live)
        with self._lock:
            gone = {pid: shown for pid, shown in self._shown.items() if pid not in kept}
            for pid in gone:
                del self._shown[pid]
        client, keys = _redis()
        for pid, shown in gone.items():
            forget_models(client, keys, shown.worker, holder=self._holder(pid))
            if shown.warm_key is not None and not self.holds(shown.warm_key):
                warmth.withdraw(client, keys, shown.worker, shown.warm_key)

    def _holder(self, pid: int) -> str:
        return f"{os.getpid()}/{pid}"


def _redis() -> tuple[Client, Keys]:
    ledger = get_workplace().ledger
    return ledger.client, ledger.keys


_models = _Models()


def _names(attempt: Attempt) -> dict[str, Any]:
    """What an attempt is of, as its `Task` has it."""
    job, record = attempt.job, attempt.record
    division = attempt.place.ledger.division(job.run_id, job.stage) if job.scattered else None
    return {
        "run_id": job.run_id,
        "stage": job.stage,
        "shard": int(record.shard),
        "of": 1 if division is None else division.shards,
        "attempt": record.attempt,
        "stage_rows": None if division is None else division.rows,
    }


def _write_rows(rows: InputSlice, path: Path) -> dict[str, Any]:
    """Put the rows where the host reads them, one JSON value a line."""
    with path.open("w", encoding="utf-8") as lines:
        for row in rows:
            lines.write(json.dumps(row, ensure_ascii=True) + "\n")
    return {"path": str(path), "start": rows.start, "count": len(rows)}
