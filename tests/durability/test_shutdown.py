"""Workers are asked to stop while shards run."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from mloc_tasks.ledger import State
from scheduler import submit_yaml
from tests.durability.conftest import ON_BOTH_BROKERS, StartWorker, document, rows
from tests.durability.test_recovery import WAIT_SEC, attempts_in_store, wait_for_attempt, wait_for_line

pytestmark = ON_BOTH_BROKERS

GRACE_SEC = 1.0
SLOW = {"taskType": "slow", "data": rows(8), "seconds": 0.5}


@pytest.mark.usefixtures("patient")
def test_a_shard_that_ends_within_the_grace_is_finished_where_it_runs(
    start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLOC_SHUTDOWN_GRACE_SEC", "30")
    leaving = start_worker("leaving")
    run = submit_yaml(document(SLOW))
    wait_for_attempt(run, stage="slow")
    os.kill(leaving.pid, signal.SIGTERM)
    start_worker("staying")
    assert run.wait(WAIT_SEC) is State.DONE
    begun = [event for event in run.events() if (event.kind, event.state) == ("shard", "running")]
    assert [event.attempt for event in begun] == [1]


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("signals", [1, 2])
def test_past_its_grace_or_asked_twice_a_shard_is_handed_back_at_once(
    start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch, signals: int, tmp_path: Path
) -> None:
    monkeypatch.setenv("MLOC_SHUTDOWN_GRACE_SEC", str(GRACE_SEC) if signals == 1 else "60")
    leaving = start_worker("leaving", concurrency=4)
    run = submit_yaml(document({**SLOW, "seconds": 60, "quick_from": 2}))
    wait_for_attempt(run, stage="slow")
    start_worker("staying")
    wait_for_line(tmp_path / "staying" / "worker.log", " ready.")
    os.kill(leaving.pid, signal.SIGTERM)
    if signals == 2:
        wait_for_line(tmp_path / "leaving" / "worker.log", "Warm shutdown")  # else the kernel makes one of the two
        os.kill(leaving.pid, signal.SIGTERM)
    again = wait_for_attempt(run, stage="slow", attempt=2)
    given_up = next(event.time for event in run.events() if event.state == "lost")
    assert 0 < again - given_up < 30  # handed back, not waited for until its lease ended
    assert run.wait(WAIT_SEC) is State.DONE
    assert attempts_in_store(tmp_path / "results", run, "slow", 0) == ["2"]
