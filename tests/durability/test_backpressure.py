"""A worker whose threads share one host leaves to others what would only wait there."""

from __future__ import annotations

from pathlib import Path

from mloc_tasks.ledger import Event, State
from scheduler import Run, submit_yaml
from tests.durability.conftest import StartWorker, document, rows
from tests.durability.test_recovery import WAIT_SEC

SHARDS = 8


def claims(run: Run, *, until: int) -> list[str]:
    """The workers that claimed the first `until` shards, in order."""
    found: list[str] = []
    for event in run.events(follow=True):
        if event.kind == "shard" and event.shard.isdigit() and event.state == "running":
            found.append(event.data["worker"])
            if len(found) == until:
                break
    return found


def shard_events(run: Run) -> list[Event]:
    return [event for event in run.events() if event.kind == "shard" and event.shard.isdigit()]


def test_threads_that_share_a_host_claim_one_shard_ahead_at_most(start_worker: StartWorker, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    start_worker("threads", concurrency=SHARDS, options=("-P", "threads"))
    one_each = {"enabled": True, "shard_size": 1}
    spec = {"taskType": "slow", "data": rows(SHARDS), "seconds": 0.1, "until": str(gate), "parallel": one_each}
    run = submit_yaml(document(spec))
    assert claims(run, until=2) == ["threads@test"] * 2  # one at work, one that waits
    start_worker("other")
    assert claims(run, until=3)[2] == "other@test"
    gate.touch()
    assert run.wait(WAIT_SEC) is State.DONE
    worker_of = {event.shard: event.data["worker"] for event in shard_events(run) if event.state == "running"}
    open_here = most = 0
    for event in shard_events(run):
        if worker_of[event.shard] == "threads@test":
            open_here += {"running": 1, "done": -1}.get(event.state, 0)
            most = max(most, open_here)
    assert most <= 3  # one at work, one that waits, one whose result is being stored


def test_light_shards_pass_a_host_that_is_busy(start_worker: StartWorker) -> None:
    start_worker("threads", concurrency=4, options=("-P", "threads"))
    long = submit_yaml(document({"taskType": "slow", "data": rows(1_000), "seconds": 1}))
    assert claims(long, until=1) == ["threads@test"]
    light = submit_yaml(document({"taskType": "echo", "message": "x"}))
    assert light.wait(WAIT_SEC) is State.DONE
    long.cancel()
    assert long.wait(WAIT_SEC) is State.CANCELLED
