"""Running shards that must end: cancelled, or past their timeout."""

from __future__ import annotations

import psutil
import pytest

from mloc_tasks.ledger import State
from scheduler import submit_yaml
from tests.durability.conftest import ON_BOTH_BROKERS, StartWorker, document, rows
from tests.durability.test_recovery import WAIT_SEC, pool_children, wait_for_attempt
from tests.waiting import wait_until

pytestmark = ON_BOTH_BROKERS

LONG = {"taskType": "slow", "data": rows(1_000), "seconds": 0.5}


def processes_named(name: str, among: list[psutil.Process]) -> list[psutil.Process]:
    return [process for process in among if process.is_running() and process.name() == name]


def test_cancelling_ends_a_running_shard_and_all_it_started(
    start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLOC_CANCEL_GRACE_SEC", "2")
    worker = start_worker("one")
    run = submit_yaml(
        document({"stages": [{"name": "long", **LONG, "child": True}, {"name": "b", "taskType": "echo"}]})
    )
    wait_for_attempt(run, stage="long")
    sleepers = wait_until(lambda: processes_named("sleep", pool_children(worker)))
    run.cancel()
    assert run.wait(WAIT_SEC) is State.CANCELLED
    psutil.wait_procs(sleepers, timeout=WAIT_SEC)
    assert not processes_named("sleep", sleepers)
    assert {stage.name: str(stage.state) for stage in run.status().stages} == {"long": "cancelled", "b": "cancelled"}
    again = submit_yaml(document({"taskType": "echo", "message": "the worker goes on"}))
    assert again.wait(WAIT_SEC) is State.DONE


def test_cancelling_a_sharded_stage_ends_it_and_starts_nothing_more(start_worker: StartWorker) -> None:
    start_worker("one", concurrency=2)
    spec = {**LONG, "data": rows(40), "parallel": {"enabled": True, "shard_size": 4}}
    run = submit_yaml(document(spec))
    for event in run.events(follow=True):
        if event.kind == "shard" and event.shard.isdigit() and event.state == "running":
            break
    run.cancel()
    assert run.wait(WAIT_SEC) is State.CANCELLED
    last = list(run.events())[-1].id
    again = submit_yaml(document({"taskType": "echo", "message": "x"}))
    assert again.wait(WAIT_SEC) is State.DONE
    assert list(run.events())[-1].id == last


def test_a_shard_past_its_timeout_fails_and_the_run_goes_to_its_end(start_worker: StartWorker) -> None:
    start_worker("one")
    stages = [{"name": "long", **LONG, "timeout": "1s"}, {"name": "after", "taskType": "echo", "message": "x"}]
    run = submit_yaml(document({"stages": stages}))
    assert run.wait(WAIT_SEC) is State.FAILED
    status = run.status()
    assert "timed out: still running after 1 seconds" in str(status.run.error)
    assert {stage.name: str(stage.state) for stage in status.stages} == {"long": "failed", "after": "skipped"}


def test_one_shard_past_its_timeout_fails_its_sharded_stage(start_worker: StartWorker) -> None:
    start_worker("one", concurrency=2)
    spec = {**LONG, "seconds": 0.1, "data": rows(401), "parallel": {"enabled": True, "shard_size": 400}}
    run = submit_yaml(document({**spec, "timeout": 15, "onFailure": "continue"}))
    assert run.wait(WAIT_SEC) is State.FAILED
    stage = run.status().stages[0]
    assert (stage.shards_done, stage.shards_failed) == (1, 1)
    assert "1 of 2 shards failed" in str(stage.error)


def test_a_thread_past_its_timeout_cannot_commit(start_worker: StartWorker) -> None:
    start_worker("one", options=("-P", "threads"))
    spec = {"taskType": "slow", "data": rows(8), "seconds": 0.5, "timeout": 1}
    run = submit_yaml(document(spec))
    assert run.wait(WAIT_SEC) is State.FAILED
    assert "timed out" in str(run.status().run.error)
