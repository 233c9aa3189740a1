"""Which workers are said to live, and what of them is shown."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from typing import Any
from weakref import WeakSet

import pytest
from celery.worker import state

from mloc_tasks.ledger import Ledger
from mloc_tasks.signatures import SHARD
from mloc_tasks.worker.registration import running_shards
from mloc_tasks.worker.registry import WorkerInfo, clean_up, live_workers
from scheduler import submit_yaml
from tests.durability.conftest import ON_BOTH_BROKERS, StartWorker, document, rows
from tests.durability.test_recovery import WAIT_SEC, kill_worker, wait_for_attempt
from tests.waiting import wait_until


def wait_for_workers(count: int) -> list[WorkerInfo]:
    ledger = Ledger.connect()
    deadline = time.monotonic() + WAIT_SEC
    while len(found := live_workers(ledger.client, ledger.keys)) != count:
        assert time.monotonic() < deadline, found
        time.sleep(0.05)
    return found


@ON_BOTH_BROKERS
def test_a_worker_registers_with_what_it_has_and_does(start_worker: StartWorker) -> None:
    start_worker("one", concurrency=2)
    found = wait_for_workers(1)[0]
    assert (found.id, found.queues, found.concurrency, found.pool) == ("one@test", ("cpu",), 2, "prefork")
    assert found.memory is not None
    assert found.memory > 2**30
    run = submit_yaml(document({"taskType": "slow", "data": rows(100), "seconds": 0.1}))
    wait_for_attempt(run, stage="slow")
    wait_until(lambda: wait_for_workers(1)[0].shards == (f"{run.id}/slow[0]",))


@ON_BOTH_BROKERS
def test_a_clean_shutdown_unregisters(start_worker: StartWorker) -> None:
    worker = start_worker("one")
    wait_for_workers(1)
    os.kill(worker.pid, signal.SIGTERM)
    wait_for_workers(0)
    ledger = Ledger.connect()
    assert ledger.client.smembers(ledger.keys.workers) == set()


def test_a_killed_worker_expires_and_cleanup_forgets_it(start_worker: StartWorker) -> None:
    worker = start_worker("one")
    wait_for_workers(1)
    kill_worker(worker)
    wait_for_workers(0)
    ledger = Ledger.connect()
    assert clean_up(ledger.client, ledger.keys) == ["one@test"]
    assert clean_up(ledger.client, ledger.keys) == []


class Request:
    """What is read of Celery's."""

    def __init__(self, shard: int) -> None:
        self.name = SHARD
        self.args = ("run", "stage", shard)


class Changing(WeakSet[Any]):
    """As where another thread changes the set in each step of an iteration."""

    def __iter__(self) -> Iterator[Any]:
        for each in super().__iter__():
            yield each
            self.discard(each)


def test_what_runs_is_told_while_other_threads_begin_and_end_it(monkeypatch: pytest.MonkeyPatch) -> None:
    requests = [Request(shard) for shard in range(3)]
    monkeypatch.setattr(state, "active_requests", Changing(requests))
    assert running_shards() == ("run/stage[0]", "run/stage[1]", "run/stage[2]")
