"""Workers and their children die, stall and come back; every shard is committed exactly once."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import psutil
import pytest

from mloc_tasks.ledger import Ledger, State
from mloc_tasks.settings import reset_settings
from scheduler import Run, submit_yaml
from scheduler.embedded import LocalWorker
from tests.durability.conftest import ON_BOTH_BROKERS, TIMEOUT_SEC, StartWorker, document, rows
from tests.waiting import wait_until

pytestmark = ON_BOTH_BROKERS

WAIT_SEC = 60


def wait_for_attempt(run: Run, *, stage: str, attempt: int = 1) -> float:
    """When attempt `attempt` at a shard of the stage began."""
    for event in run.events(follow=True):
        if (event.kind, event.stage, event.state) == ("shard", stage, "running") and event.attempt == attempt:
            return event.time
    raise AssertionError(f"{stage} saw no attempt {attempt}")


def wait_for_failure(run: Run, *, stage: str) -> None:
    failures = (each for each in run.events(follow=True) if (each.kind, each.state) == ("stage", "failed"))
    assert any(each.stage == stage for each in failures), f"{stage} did not fail"


def wait_for_line(log: Path, text: str) -> None:
    wait_until(lambda: text in log.read_text(), why=log.read_text)


def pool_children(worker: LocalWorker) -> list[psutil.Process]:
    return psutil.Process(worker.pid).children(recursive=True)


def kill_worker(worker: LocalWorker) -> float:
    """SIGKILL for a worker and its children, as when a machine goes away. Gives the time."""
    os.killpg(worker.pid, signal.SIGKILL)
    return time.time()


def attempts_in_store(results: Path, run: Run, stage: str, shard: int) -> list[str]:
    return sorted(path.name for path in (results / run.id / stage / str(shard)).iterdir())


def test_a_shard_longer_than_the_visibility_timeout_runs_once(
    start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLOC_VISIBILITY_TIMEOUT_SEC", "10")
    reset_settings()
    start_worker("one")
    start_worker("two")
    spec = {"taskType": "slow", "data": rows(3), "seconds": 4}
    run = submit_yaml(document(spec))
    assert run.wait(WAIT_SEC) is State.DONE
    begun = [event for event in run.events() if (event.kind, event.state) == ("shard", "running")]
    assert len(begun) == 1


def test_the_shard_of_a_killed_worker_runs_elsewhere_within_the_timeout(
    start_worker: StartWorker, tmp_path: Path
) -> None:
    first = start_worker("first")
    spec = {"taskType": "slow", "data": rows(4), "seconds": 60, "quick_from": 2}
    run = submit_yaml(document(spec))
    wait_for_attempt(run, stage="slow")
    start_worker("second")
    wait_for_line(tmp_path / "second" / "worker.log", " ready.")
    killed = kill_worker(first)
    taken_over = wait_for_attempt(run, stage="slow", attempt=2)
    assert taken_over - killed < TIMEOUT_SEC + 10
    assert run.wait(WAIT_SEC) is State.DONE
    assert [item["output"] for item in run.result()["items"]] == [f"row {number}!" for number in range(4)]
    assert attempts_in_store(tmp_path / "results", run, "slow", 0) == ["2"]


@pytest.mark.usefixtures("patient")
def test_the_shard_of_a_killed_child_is_tried_again_at_once(start_worker: StartWorker) -> None:
    start_worker("one", concurrency=2)
    run = submit_yaml(document({"taskType": "crash", "survives": 2}))
    assert run.wait(WAIT_SEC) is State.DONE
    events = list(run.events())
    lost = next(event.time for event in events if event.state == "lost")
    again = next(event.time for event in events if event.kind == "shard" and event.attempt == 2)
    assert again - lost < 30  # not waited for until a lease ended
    assert run.result()["attempt"] == 2


def test_a_shard_that_kills_its_worker_each_time_is_given_up(start_worker: StartWorker) -> None:
    start_worker("one")
    stages = [{"name": "poison", "taskType": "crash"}, {"name": "after", "taskType": "echo", "message": "x"}]
    run = submit_yaml(document({"stages": stages, "retry": {"maxAttempts": 2}}))
    assert run.wait(WAIT_SEC) is State.FAILED
    status = run.status()
    assert "2 attempts were taken and none of them came to an end" in str(status.run.error)
    assert {stage.name: str(stage.state) for stage in status.stages} == {"poison": "failed", "after": "skipped"}


def test_a_retryable_failure_is_tried_again_and_leaves_its_history(start_worker: StartWorker) -> None:
    start_worker("one")
    spec = {"taskType": "flaky", "survives": 3, "retry": {"maxAttempts": 3, "backoffSeconds": 0.1}}
    run = submit_yaml(document(spec))
    assert run.wait(WAIT_SEC) is State.DONE
    shard = next(Ledger.connect().shards(run.id, "flaky"))
    assert shard.attempt == 3
    assert [entry["error"]["message"] for entry in shard.history] == ["the network is away"] * 2


def test_attempts_end_where_retry_says(start_worker: StartWorker) -> None:
    start_worker("one")
    spec = {"taskType": "flaky", "survives": 9, "retry": {"maxAttempts": 2, "backoffSeconds": 0.1}}
    run = submit_yaml(document(spec))
    assert run.wait(WAIT_SEC) is State.FAILED
    error = run.status().run.error
    assert error is not None
    assert (error.attempt, error.message) == (2, "the network is away")


def test_a_bug_fails_the_run_at_once_with_the_end_of_its_log(start_worker: StartWorker) -> None:
    start_worker("one")
    run = submit_yaml(document({"taskType": "buggy"}))
    assert run.wait(WAIT_SEC) is State.FAILED
    error = run.status().run.error
    assert error is not None
    assert (error.stage, error.shard, error.attempt, error.worker) == ("buggy", "0", 1, "one@test")
    assert error.message == "ZeroDivisionError: integer division or modulo by zero"
    assert "about to divide" in error.log
    assert 'return {"ok": 1 // 0}' in error.log


def test_an_executor_that_exits_is_a_permanent_failure(start_worker: StartWorker) -> None:
    start_worker("one", concurrency=2)
    run = submit_yaml(document({"taskType": "quitting"}))
    assert run.wait(WAIT_SEC) is State.FAILED
    error = run.status().run.error
    assert error is not None
    assert (error.attempt, error.message) == (1, "the executor ended its process by sys.exit(3)")


def test_a_running_stage_finishes_when_another_fails(start_worker: StartWorker, tmp_path: Path) -> None:
    start_worker("one", concurrency=3)  # two for the shards of the healthy stage
    failed = tmp_path / "failed"
    halves = {"enabled": True, "shard_size": 4}
    nodes = [
        {"name": "healthy", "taskType": "slow", "data": rows(8), "until": str(failed), "parallel": halves},
        {"name": "bad", "taskType": "buggy"},
        {"name": "after", "taskType": "echo", "dependsOn": ["healthy"], "message": "x"},
    ]
    run = submit_yaml(document({"graph": {"nodes": nodes}, "priority": 4}))
    wait_for_failure(run, stage="bad")
    failed.touch()
    assert run.wait(WAIT_SEC) is State.FAILED
    states = {stage.name: str(stage.state) for stage in run.status().stages}
    assert states["bad"] == "failed"
    assert states["after"] == "skipped"
    assert states["healthy"] in ("done", "skipped")  # skipped where the failure came before it began


def test_redis_without_room_for_writes_is_waited_for(start_worker: StartWorker, tmp_path: Path) -> None:
    start_worker("one")
    gate = tmp_path / "gate"
    run = submit_yaml(document({"taskType": "slow", "data": rows(4), "seconds": 0.5, "until": str(gate)}))
    wait_for_attempt(run, stage="slow")
    client = Ledger.connect().client
    client.config_set("maxmemory", "1")
    gate.touch()
    wait_for_line(tmp_path / "one" / "worker.log", "takes no writes")
    client.config_set("maxmemory", "0")
    assert run.wait(WAIT_SEC) is State.DONE


def test_a_worker_that_was_paused_past_its_timeout_can_finish_nothing(
    start_worker: StartWorker, tmp_path: Path
) -> None:
    paused = start_worker("paused")
    gate = tmp_path / "gate"
    spec = {"taskType": "slow", "data": rows(4), "seconds": 0.5, "until": str(gate)}
    run = submit_yaml(document(spec))
    wait_for_attempt(run, stage="slow")
    os.killpg(paused.pid, signal.SIGSTOP)
    gate.touch()
    start_worker("other")
    assert run.wait(WAIT_SEC) is State.DONE
    os.killpg(paused.pid, signal.SIGCONT)
    wait_for_line(tmp_path / "paused" / "worker.log", "a newer attempt has taken over")
    shard = next(Ledger.connect().shards(run.id, "slow"))
    assert (shard.attempt, shard.worker) == (2, "other@test")
    assert attempts_in_store(tmp_path / "results", run, "slow", 0) == ["2"]


@pytest.mark.parametrize("victim", ["scatter", "shards"])
def test_a_sharded_stage_survives_the_death_of_its_worker(
    start_worker: StartWorker, victim: str, tmp_path: Path
) -> None:
    first = start_worker("first", concurrency=2)
    start_worker("second", concurrency=2)
    spec = {
        "stages": [
            {
                "name": "many",
                "taskType": "slow",
                "data": rows(24),
                "seconds": 0.05,
                "parallel": {"enabled": True, "shard_size": 2},
            },
            {"name": "last", "taskType": "echo", "message": "${many.items[23].output}"},
        ]
    }
    run = submit_yaml(document(spec))
    if victim == "scatter":
        wait_for_attempt(run, stage="many")
    else:
        for event in run.events(follow=True):
            if event.kind == "shard" and event.shard.isdigit() and event.state == "done":
                break
    kill_worker(first)
    assert run.result(timeout=WAIT_SEC)["message"] == "row 23!"
    stage = run.status().stages[0]
    assert (stage.shards, stage.shards_done, stage.items_done) == (12, 12, 24)
    for shard in range(12):
        assert len(attempts_in_store(tmp_path / "results", run, "many", shard)) == 1
