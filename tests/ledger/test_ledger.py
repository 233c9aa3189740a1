"""The ledger on a real Valkey: claims, fencing, states that only move forward, events, memory."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from mloc_tasks.errors import BrokerError, IllegalTransitionError, RunNotFoundError, StaleAttemptError
from mloc_tasks.ledger import (
    GATHER,
    SCATTER,
    Claim,
    ClaimStatus,
    Failure,
    Ledger,
    NewRun,
    NewStage,
    ShardSlice,
    StageResult,
    State,
    check_transition,
)
from mloc_tasks.settings import DAY_SEC, Settings

MEGABYTE = 1_000_000


@pytest.fixture
def ledger(valkey: str) -> Iterator[Ledger]:
    """A ledger under a prefix of its own, emptied afterwards."""
    ledger = Ledger.connect(Settings(redis_url=valkey, prefix=f"t{uuid.uuid4().hex}:"))
    yield ledger
    for key in ledger.client.scan_iter(f"{ledger.keys.prefix}*"):
        ledger.client.delete(key)


def new_run(*stages: NewStage, on_failure: str = "stop", run_id: str = "run") -> NewRun:
    return NewRun(
        id=run_id,
        name="test",
        owner="alice",
        labels={"team": "search"},
        header={"apiVersion": "mloc/v1", "kind": "EchoTask", "metadata": {"name": "test"}},
        stages=stages or (new_stage("a"),),
        on_failure=on_failure,
        result_stage=(stages or (new_stage("a"),))[-1].name,
        spec_text="apiVersion: mloc/v1",
    )


def new_stage(name: str, *depends_on: str, scattered: bool = False) -> NewStage:
    return NewStage(
        name=name, depends_on=depends_on, document={"task_type": "echo"}, queue="cpu", priority=4, scattered=scattered
    )


def claim(ledger: Ledger, stage: str = "a", shard: str = "0", *, holder: str = "1:1", **options: Any) -> Claim:
    options = {"worker": "w1", "task_id": "t", "whole": True, **options}
    return ledger.claim("run", stage, shard, holder=holder, **options)


def commit(ledger: Ledger, stage: str = "a", shard: str = "0", *, attempt: int = 1, **options: Any) -> None:
    options = {"state": State.DONE, "whole": True, "result": StageResult(prefix=f"run/{stage}/0/1"), **options}
    ledger.commit("run", stage, shard, attempt=attempt, **options)


def states(ledger: Ledger) -> dict[str, State]:
    return {stage.name: stage.state for stage in ledger.stages("run")}


def show_alive(ledger: Ledger, worker: str) -> None:
    ledger.client.set(ledger.keys.lease(worker), "1")


def test_a_new_run_is_queued_with_all_its_stages(ledger: Ledger) -> None:
    ledger.create(new_run(new_stage("a"), new_stage("b", "a")))
    run = ledger.run("run")
    assert (run.state, run.owner, run.labels, run.stages) == (State.QUEUED, "alice", {"team": "search"}, ("a", "b"))
    assert states(ledger) == {"a": State.QUEUED, "b": State.QUEUED}
    assert ledger.spec_text("run") == "apiVersion: mloc/v1"


def test_a_claim_starts_attempt_stage_and_run(ledger: Ledger) -> None:
    ledger.create(new_run())
    answer = claim(ledger)
    assert answer.status is ClaimStatus.CLAIMED
    assert answer.shard is not None
    assert (answer.shard.attempt, answer.shard.worker, answer.shard.state) == (1, "w1", State.RUNNING)
    assert states(ledger) == {"a": State.RUNNING}
    assert ledger.run("run").state is State.RUNNING


def test_of_many_claims_at_once_one_wins(ledger: Ledger) -> None:
    ledger.create(new_run())
    show_alive(ledger, "w1")
    barrier = threading.Barrier(8)
    answers: list[ClaimStatus] = []

    def contend(number: int) -> None:
        barrier.wait()
        answers.append(claim(ledger, holder=f"{number}:1").status)

    threads = [threading.Thread(target=contend, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [ClaimStatus.BUSY] * 7 + [ClaimStatus.CLAIMED]


def test_a_shard_of_a_vanished_worker_can_be_claimed_again(ledger: Ledger) -> None:
    ledger.create(new_run())
    claim(ledger, worker="gone")
    answer = claim(ledger, worker="w2", holder="2:2")
    assert answer.status is ClaimStatus.CLAIMED
    assert answer.shard is not None
    assert answer.shard.attempt == 2


def test_a_dead_childs_claim_is_taken_over_though_its_worker_lives(ledger: Ledger) -> None:
    ledger.create(new_run())
    show_alive(ledger, "w1")
    claim(ledger, holder="1:1")
    assert claim(ledger, holder="2:2").status is ClaimStatus.BUSY
    assert claim(ledger, holder="2:2", takeover=1).status is ClaimStatus.CLAIMED


def test_a_claim_ends_with_the_life_of_its_worker(ledger: Ledger) -> None:
    """Also where the worker has come back under its name, and renews its lease."""
    ledger.create(new_run())
    ledger.client.set(ledger.keys.lease("w1"), "first")
    claim(ledger, worker="w1", holder="1:1:first")
    assert claim(ledger, worker="w2", holder="2:2:other").status is ClaimStatus.BUSY
    ledger.client.set(ledger.keys.lease("w1"), "second")
    shard = next(ledger.shards("run", "a"))
    assert not shard.stands_under(ledger.leases(["w1", "w2"]))
    assert claim(ledger, worker="w2", holder="2:2:other").status is ClaimStatus.CLAIMED


def test_a_stale_attempt_cannot_commit(ledger: Ledger) -> None:
    ledger.create(new_run())
    claim(ledger, worker="gone")
    claim(ledger, worker="w2", holder="2:2")
    with pytest.raises(StaleAttemptError, match="attempt 1"):
        commit(ledger, attempt=1)
    assert states(ledger) == {"a": State.RUNNING}
    commit(ledger, attempt=2)
    assert states(ledger) == {"a": State.DONE}


def test_a_second_commit_is_an_illegal_move(ledger: Ledger) -> None:
    ledger.create(new_run())
    claim(ledger)
    commit(ledger)
    with pytest.raises(IllegalTransitionError, match="done already"):
        commit(ledger, state=State.FAILED)


def test_a_redelivered_message_of_a_finished_shard_learns_its_end(ledger: Ledger) -> None:
    ledger.create(new_run())
    claim(ledger)
    commit(ledger)
    answer = claim(ledger)
    assert answer.status is ClaimStatus.SETTLED
    assert answer.shard is not None
    assert answer.shard.state is State.DONE


def test_a_stage_waits_for_those_it_depends_on(ledger: Ledger) -> None:
    ledger.create(new_run(new_stage("a"), new_stage("b", "a")))
    assert claim(ledger, "b").status is ClaimStatus.WAITING
    claim(ledger, "a")
    commit(ledger, "a")
    assert claim(ledger, "b").status is ClaimStatus.CLAIMED


FAILURE = Failure(message="no such model", stage="a", shard="0", attempt=1, worker="w1")


def test_after_a_failure_nothing_new_starts_and_the_run_names_the_cause(ledger: Ledger) -> None:
    ledger.create(new_run(new_stage("a"), new_stage("b", "a"), new_stage("c")))
    claim(ledger, "a")
    commit(ledger, "a", state=State.FAILED, error=FAILURE, result=None)
    for stage in ("b", "c"):
        answer = claim(ledger, stage)
        assert answer.shard is not None
        assert answer.shard.state is State.SKIPPED
    assert ledger.finish("run") is State.FAILED
    assert ledger.run("run").error == FAILURE
    assert str(FAILURE) == "stage a, attempt 1 on w1: no such model"


def test_with_on_failure_continue_independent_branches_go_on(ledger: Ledger) -> None:
    ledger.create(new_run(new_stage("a"), new_stage("b", "a"), new_stage("c"), on_failure="continue"))
    claim(ledger, "a")
    commit(ledger, "a", state=State.FAILED, error=FAILURE, result=None)
    assert claim(ledger, "b").status is ClaimStatus.SETTLED
    assert claim(ledger, "c").status is ClaimStatus.CLAIMED
    commit(ledger, "c")
    assert ledger.finish("run") is State.FAILED
    assert states(ledger) == {"a": State.FAILED, "b": State.SKIPPED, "c": State.DONE}


def test_a_released_attempt_leaves_its_error_in_the_history(ledger: Ledger) -> None:
    ledger.create(new_run())
    show_alive(ledger, "w1")
    claim(ledger)
    ledger.release("run", "a", "0", attempt=1, error=FAILURE)
    answer = claim(ledger, holder="2:2")
    assert answer.shard is not None
    assert answer.shard.attempt == 2
    assert answer.shard.history[0]["error"]["message"] == "no such model"
    with pytest.raises(StaleAttemptError):
        commit(ledger, attempt=1)


def test_cancelling_a_queued_run_ends_it_at_once(ledger: Ledger) -> None:
    ledger.create(new_run(new_stage("a"), new_stage("b", "a")))
    assert ledger.cancel("run") is State.CANCELLED
    assert states(ledger) == {"a": State.CANCELLED, "b": State.CANCELLED}
    answer = claim(ledger)
    assert answer.status is ClaimStatus.SETTLED
    assert answer.shard is not None
    assert answer.shard.state is State.CANCELLED


def test_cancelling_lets_what_runs_end_and_starts_nothing_more(ledger: Ledger) -> None:
    ledger.create(new_run(new_stage("a"), new_stage("b", "a")))
    claim(ledger, "a")
    assert ledger.cancel("run") is State.RUNNING
    commit(ledger, "a")
    assert claim(ledger, "b").status is ClaimStatus.SETTLED
    assert ledger.finish("run") is State.CANCELLED


def test_a_finished_run_stays_as_it_is(ledger: Ledger) -> None:
    ledger.create(new_run())
    assert ledger.finish("run") is State.RUNNING  # a stage is open: not over
    claim(ledger)
    commit(ledger)
    assert ledger.finish("run") is State.DONE
    assert ledger.cancel("run") is State.DONE
    assert ledger.finish("run") is State.DONE
    assert [event.state for event in ledger.events("run") if event.kind == "run"] == ["queued", "running", "done"]


def test_progress_of_shards_adds_up_and_a_new_attempt_starts_from_nothing(ledger: Ledger) -> None:
    ledger.create(new_run(new_stage("a", scattered=True)))
    claim(ledger, shard=SCATTER, whole=False)
    slices = [ShardSlice(start=0, stop=10), ShardSlice(start=10, stop=20)]
    assert ledger.open_shards("run", "a", attempt=1, slices=slices, rows=20) == 2
    claim(ledger, shard="0", worker="gone", whole=False)
    claim(ledger, shard="1", whole=False)
    ledger.progress("run", "a", "0", attempt=1, done=4, total=10)
    ledger.progress("run", "a", "1", attempt=1, done=5, total=10)
    assert (ledger.stages("run")[0].items_done, ledger.stages("run")[0].items_total) == (9, 20)
    claim(ledger, shard="0", worker="w2", holder="2:2", whole=False)
    assert ledger.stages("run")[0].items_done == 5
    ledger.progress("run", "a", "0", attempt=1, done=9, total=10)  # of the attempt that was replaced
    assert ledger.stages("run")[0].items_done == 5
    commit(ledger, shard="0", attempt=2, whole=False, items=10)
    commit(ledger, shard="1", attempt=1, whole=False, items=10)
    stage = ledger.stages("run")[0]
    assert (stage.items_done, stage.shards, stage.shards_done, stage.state) == (20, 2, 2, State.RUNNING)
    claim(ledger, shard=GATHER)
    commit(ledger, shard=GATHER, attempt=1)
    assert states(ledger) == {"a": State.DONE}


def test_a_second_split_never_overwrites_a_shard_that_began(ledger: Ledger) -> None:
    ledger.create(new_run(new_stage("a", scattered=True)))
    claim(ledger, shard=SCATTER, worker="gone", whole=False)
    ledger.open_shards("run", "a", attempt=1, slices=[ShardSlice(start=0, stop=1)], rows=1)
    claim(ledger, shard="0", whole=False)
    assert ledger.open_shards("run", "a", attempt=1, slices=[ShardSlice(start=0, stop=1)], rows=1) == 1
    with pytest.raises(StaleAttemptError):
        ledger.open_shards("run", "a", attempt=2, slices=[ShardSlice(start=0, stop=1)], rows=1)
    assert next(ledger.shards("run", "a")).state is State.RUNNING


def test_shards_keep_their_rows_and_offset(ledger: Ledger) -> None:
    ledger.create(new_run(new_stage("a", scattered=True)))
    claim(ledger, shard=SCATTER, whole=False)
    slices = [
        ShardSlice(start=0, stop=3, offset=0),
        ShardSlice(start=3, stop=5, offset=2**40),
        ShardSlice(start=5, stop=6),
    ]
    ledger.open_shards("run", "a", attempt=1, slices=slices, rows=6)
    claim(ledger, shard="1", whole=False)
    commit(ledger, shard="1", whole=False)
    records = sorted(ledger.shards("run", "a"), key=lambda record: int(record.shard))
    assert [record.rows for record in records] == slices


def test_events_are_bounded(valkey: str) -> None:
    ledger = Ledger.connect(Settings(redis_url=valkey, prefix=f"t{uuid.uuid4().hex}:", events_per_run=100))
    ledger.create(new_run())
    for number in range(1_000):
        ledger.emit("run", "log", data={"message": str(number)})
    assert ledger.client.xlen(ledger.keys.events("run")) < 300  # Redis trims whole nodes of about a hundred


def test_every_key_of_a_run_expires_and_the_index_forgets_it(ledger: Ledger) -> None:
    ledger.create(new_run(new_stage("a"), new_stage("b", "a")))
    claim(ledger)
    keys = [key for key in ledger.client.scan_iter(f"{ledger.keys.prefix}run:*")]
    assert len(keys) == 7
    for key in keys:
        assert 29 * DAY_SEC < ledger.client.ttl(key) <= 30 * DAY_SEC
    ledger.client.delete(*keys)
    assert list(ledger.runs()) == []
    assert ledger.client.zcard(ledger.keys.index) == 0


def test_an_unknown_run_is_said_to_be_unknown(ledger: Ledger) -> None:
    for call in (ledger.run, ledger.stages, ledger.cancel, ledger.finish):
        with pytest.raises(RunNotFoundError, match="nowhere"):
            call("nowhere")


def test_a_server_that_is_not_there_is_named_without_its_password() -> None:
    ledger = Ledger.connect(Settings(redis_url="redis://:secret@127.0.0.1:1/0"))
    with pytest.raises(BrokerError, match=r"redis://:\*\*\*@127.0.0.1:1/0") as caught:
        ledger.run("run")
    assert "secret" not in str(caught.value)
    assert "redis-server" in caught.value.hint


@pytest.mark.parametrize(
    ("old", "new", "legal"),
    [
        (State.QUEUED, State.RUNNING, True),
        (State.QUEUED, State.SKIPPED, True),
        (State.RUNNING, State.DONE, True),
        (State.RUNNING, State.QUEUED, False),
        (State.RUNNING, State.RUNNING, False),
        (State.DONE, State.FAILED, False),
        (State.CANCELLED, State.RUNNING, False),
    ],
)
def test_states_move_forward_only(old: State, new: State, legal: bool) -> None:
    if legal:
        check_transition(old, new, what="stage a")
    else:
        with pytest.raises(IllegalTransitionError, match="stage a"):
            check_transition(old, new, what="stage a")


def test_100_000_shards_take_less_than_100_megabytes(ledger: Ledger) -> None:
    shards = 100_000
    before = int(ledger.client.info("memory")["used_memory"])
    ledger.create(new_run(new_stage("a", scattered=True)))
    claim(ledger, shard=SCATTER, whole=False)
    ledger.open_shards(
        "run",
        "a",
        attempt=1,
        rows=shards * 64,
        slices=(ShardSlice(start=64 * i, stop=64 * i + 64, offset=9_999 * i) for i in range(shards)),
    )
    # Every shard as it stands at its end. Written through the scripts by a pipeline, which is how long a test can wait.
    key = ledger.keys.shards("run", "a")
    claim(
        ledger,
        shard="0",
        worker="celery@gpu-node-0042",
        holder="4194304:139872345678912",
        task_id=str(uuid.uuid4()),
        whole=False,
    )
    commit(ledger, shard="0", whole=False, items=64)
    finished = ledger.client.hget(key, "0")
    with ledger.client.pipeline(transaction=False) as pipe:
        for number in range(shards):
            pipe.hset(key, str(number), finished)
        pipe.execute()
    used = int(ledger.client.info("memory")["used_memory"]) - before
    assert used < 100 * MEGABYTE, f"{used / MEGABYTE:.0f} MB"
