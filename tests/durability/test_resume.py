"""Runs that ended are taken up again: only what is not done runs, with attempts that go on counting."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mloc_tasks.errors import ResumeError
from mloc_tasks.ledger import Ledger, State
from scheduler import Run, submit_yaml
from tests.durability.conftest import ON_BOTH_BROKERS, StartWorker, document, rows
from tests.durability.test_recovery import WAIT_SEC, wait_for_failure


def stage(name: str, *depends_on: str, **spec: Any) -> dict[str, Any]:
    return {"name": name, "dependsOn": list(depends_on), "taskType": "echo", "message": name, **spec}


def gated(name: str, gate: Path, items: list[str], *depends_on: str, **spec: Any) -> dict[str, Any]:
    data = {"type": "list", "items": items}
    return {"name": name, "dependsOn": list(depends_on), "taskType": "gate", "gate": str(gate), "data": data, **spec}


def states(run: Run) -> dict[str, str]:
    return {each.name: str(each.state) for each in run.status().stages}


def begun(run: Run) -> list[tuple[str, str, int]]:
    """(stage, shard, attempt) of each attempt so far, in no order."""
    events = run.events()
    return sorted((e.stage, e.shard, e.attempt) for e in events if (e.kind, e.state) == ("shard", "running"))


SHARDED = {"parallel": {"enabled": True, "shard_size": 1}}


@ON_BOTH_BROKERS
def test_a_failed_run_goes_on_with_what_is_not_done(start_worker: StartWorker, tmp_path: Path) -> None:
    start_worker("one", concurrency=2)
    gate = tmp_path / "gate"
    stages = [
        stage("first"),
        gated("many", gate, ["a", "bad b", "c"], "first", **SHARDED),
        stage("last", "many", message="${many.items[1].output}"),
    ]
    run = submit_yaml(document({"stages": stages, "onFailure": "continue"}))
    assert run.wait(WAIT_SEC) is State.FAILED
    assert states(run) == {"first": "done", "many": "failed", "last": "skipped"}
    before = begun(run)
    gate.touch()
    assert run.resume() == ("many", "last")
    assert run.result(timeout=WAIT_SEC)["message"] == "bad b!"
    again = [each for each in begun(run) if each not in before]
    assert again == [("last", "0", 1), ("many", "1", 2), ("many", "gather", 2)]
    status = run.status()
    assert (status.run.error, status.run.generation) == (None, 1)
    many = status.stages[1]
    assert (many.shards, many.shards_done, many.shards_failed, many.items_done) == (3, 3, 0, 3)
    assert [item["output"] for item in run.result("many")["items"]] == ["a!", "bad b!", "c!"]
    shard = Ledger.connect().shard(run.id, "many", "1")
    assert shard is not None
    assert [entry["error"]["message"] for entry in shard.history] == ["the gate is closed to bad b"]


def test_the_events_of_a_resumed_run_are_followed_to_its_last_end(start_worker: StartWorker, tmp_path: Path) -> None:
    start_worker("one")
    gate = tmp_path / "gate"
    run = submit_yaml(document({"stages": [gated("a", gate, ["bad"])]}))
    assert run.wait(WAIT_SEC) is State.FAILED
    gate.touch()
    run.resume()
    assert run.wait(WAIT_SEC) is State.DONE
    ends = [event.state for event in run.events(follow=True) if event.kind == "run"]
    assert ends == ["queued", "running", "failed", "queued", "running", "done"]


def test_from_a_stage_on_everything_runs_again(start_worker: StartWorker, tmp_path: Path) -> None:
    start_worker("one", concurrency=2)
    data = tmp_path / "rows.txt"
    data.write_text("a\nb\nc\n")
    stages = [
        stage("first"),
        stage("read", data={"type": "file", "url": str(data)}, message=None, **SHARDED),
        stage("copy", "read", data={"type": "stage", "stage": "read"}, message=None),
    ]
    run = submit_yaml(document({"stages": stages}))
    assert run.wait(WAIT_SEC) is State.DONE
    before = begun(run)
    data.write_text("x\ny\n")
    assert run.resume(from_stage="read") == ("read", "copy")
    assert [item["output"] for item in run.result(timeout=WAIT_SEC)["items"]] == ["x", "y"]
    again = [each for each in begun(run) if each not in before]
    assert [(name, shard) for name, shard, _ in again] == [
        ("copy", "0"),
        ("read", "0"),
        ("read", "1"),
        ("read", "gather"),
        ("read", "scatter"),
    ]
    assert min(attempt for _, _, attempt in again) == 2
    read = run.status().stages[1]
    assert (read.shards, read.shards_done, read.items_done) == (2, 2, 2)


def test_the_budget_of_attempts_starts_anew(start_worker: StartWorker) -> None:
    start_worker("one")
    spec = {"taskType": "flaky", "survives": 4, "retry": {"maxAttempts": 2, "backoffSeconds": 0.1}}
    run = submit_yaml(document(spec))
    assert run.wait(WAIT_SEC) is State.FAILED
    run.resume()
    assert run.wait(WAIT_SEC) is State.DONE
    assert run.result()["attempt"] == 4


@ON_BOTH_BROKERS
def test_a_cancelled_run_goes_on(start_worker: StartWorker, tmp_path: Path) -> None:
    start_worker("one")
    gate = tmp_path / "gate"
    stages = [stage("first"), {"name": "slow", "taskType": "slow", "data": rows(2), "until": str(gate)}, stage("end")]
    stages[2]["dependsOn"] = ["slow"]
    run = submit_yaml(document({"stages": stages}))
    for event in run.events(follow=True):
        if (event.stage, event.state) == ("slow", "running"):
            break
    run.cancel()
    assert run.wait(WAIT_SEC) is State.CANCELLED
    with pytest.raises(ResumeError, match="no stage of it failed"):
        run.retry_failed()
    gate.touch()
    assert run.resume() == ("slow", "end")
    assert run.wait(WAIT_SEC) is State.DONE
    assert not run.status().run.cancel_requested


@ON_BOTH_BROKERS
def test_messages_from_before_a_resume_do_nothing_twice(start_worker: StartWorker) -> None:
    run = submit_yaml(document({"stages": [stage("a"), stage("b", "a"), stage("c", "a")]}))
    assert run.cancel() is State.CANCELLED
    assert run.resume() == ("a", "b", "c")
    start_worker("one", concurrency=2)
    assert run.wait(WAIT_SEC) is State.DONE
    assert begun(run) == [("a", "0", 1), ("b", "0", 1), ("c", "0", 1)]


def test_a_run_that_is_going_on_or_done_is_not_resumed(start_worker: StartWorker) -> None:
    run = submit_yaml(document({"stages": [stage("only")]}))
    with pytest.raises(ResumeError, match="is queued"):
        run.resume()
    start_worker("one")
    assert run.wait(WAIT_SEC) is State.DONE
    with pytest.raises(ResumeError, match="nothing of it is left to do"):
        run.resume()
    with pytest.raises(ResumeError, match="there is no stage 'none'; the run has only"):
        run.resume(from_stage="none")


@ON_BOTH_BROKERS
@pytest.mark.parametrize("sharded", [False, True])
def test_after_a_failure_independent_branches_stop_or_continue(
    start_worker: StartWorker, tmp_path: Path, sharded: bool
) -> None:
    """Also where the branches meet in a chord, and where what is skipped would have been split."""
    start_worker("one", concurrency=3)  # two for the shards of the slow stage, which wait for the other's failure
    split = SHARDED if sharded else {}

    def fail(policy: str) -> Run:
        failed = tmp_path / f"failed-{policy}"
        stages = [
            gated("bad", tmp_path / "gate", ["bad", "good"], **split),
            {"name": "slow", "dependsOn": [], "taskType": "slow", "data": rows(2), "until": str(failed), **split},
            stage("after-slow", "slow", data=rows(2), **split),
            stage("after-bad", "bad", data=rows(2), **split),
            stage("join", "after-slow", "after-bad", data=rows(2), **split),
        ]
        run = submit_yaml(document({"stages": stages, "onFailure": policy}))
        wait_for_failure(run, stage="bad")
        failed.touch()
        assert run.wait(WAIT_SEC) is State.FAILED
        return run

    run = fail("continue")
    skipped = {"bad": "failed", "after-bad": "skipped", "join": "skipped"}
    assert states(run) == {**skipped, "slow": "done", "after-slow": "done"}
    stopped = fail("stop")
    assert states(stopped)["after-slow"] == "skipped"
    (tmp_path / "gate").touch()
    for each in (run, stopped):
        each.retry_failed()
        assert each.wait(WAIT_SEC) is State.DONE
        assert set(states(each).values()) == {"done"}
