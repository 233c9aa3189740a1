"""Messages are lost, workers vanish with the queue: `reconcile` finds what is stranded and sends it again, once."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from mloc_tasks.configuration import sending_app
from mloc_tasks.ledger import Ledger, State
from mloc_tasks.settings import get_settings
from scheduler import Run, submit_yaml
from scheduler.backlog import queue_keys
from scheduler.messages import RunMessages, can_look_into, find_messages
from scheduler.reconcile import Action, Activity, Picture, Reconciler, decide
from tests.durability.conftest import ON_BOTH_BROKERS, ON_RABBITMQ, TIMEOUT_SEC, StartWorker, document, rows
from tests.durability.cpu_queue import CpuQueue
from tests.durability.test_recovery import WAIT_SEC, attempts_in_store, kill_worker, wait_for_attempt
from tests.durability.test_resume import SHARDED, stage
from tests.waiting import wait_until

GRACE_SEC = 0.5


def reconciler(grace_sec: float = GRACE_SEC) -> Reconciler:
    settings = get_settings()
    return Reconciler(ledger=Ledger.connect(settings), settings=settings, grace_sec=grace_sec)


def reconcile_until_resent(each: Reconciler | None = None) -> list[str]:
    """Look until something is done, as `mloc reconcile` does; gives what it said."""
    each = each or reconciler()
    return [finding.decision.reason for finding in wait_until(each.look, why=lambda: "nothing stranded")]


@ON_BOTH_BROKERS
def test_a_flushed_queue_is_filled_again_and_every_shard_runs_once(
    start_worker: StartWorker, cpu_queue: CpuQueue, tmp_path: Path
) -> None:
    first = start_worker("first")
    gate = tmp_path / "gate"
    spec = {"taskType": "slow", "data": rows(6), "until": str(gate), **SHARDED}
    run = submit_yaml(document(spec))
    for event in run.events(follow=True):
        if event.kind == "shard" and event.shard.isdigit() and event.state == "running":
            break
    assert cpu_queue.flush() >= 4
    kill_worker(first)
    gate.touch()
    start_worker("second", concurrency=4)
    reasons = reconcile_until_resent(reconciler(grace_sec=2))
    assert reasons[0].startswith("neither message nor worker for slow[")
    assert run.wait(WAIT_SEC) is State.DONE
    assert [item["output"] for item in run.result()["items"]] == [f"row {number}!" for number in range(6)]
    (stage_record,) = run.status().stages
    assert (stage_record.shards_done, stage_record.items_done) == (6, 6)
    for shard in range(6):
        assert len(attempts_in_store(tmp_path / "results", run, "slow", shard)) == 1


@ON_BOTH_BROKERS
def test_a_run_whose_first_message_is_lost_is_sent_again_once(start_worker: StartWorker, cpu_queue: CpuQueue) -> None:
    run = submit_yaml(document({"stages": [stage("a"), stage("b", "a")]}))
    assert cpu_queue.flush() == 1
    assert reconciler(WAIT_SEC).look() == []  # too young
    assert reconcile_until_resent() == ["neither message nor worker for a[0]"]
    assert [reconciler(WAIT_SEC).look() for _ in range(2)] == [[], []]
    assert len(cpu_queue) == 1
    start_worker("one")
    assert run.wait(WAIT_SEC) is State.DONE
    assert [event.kind for event in run.events()].count("resent") == 1


def test_messages_that_wait_for_workers_are_not_sent_again(start_worker: StartWorker) -> None:
    run = submit_yaml(document({"stages": [stage("a"), stage("b", "a")]}))
    time.sleep(2 * GRACE_SEC)
    assert reconciler().look() == []
    assert run.status().run.resends == 0


@ON_RABBITMQ
def test_where_messages_cannot_be_seen_one_too_many_does_nothing_twice(
    start_worker: StartWorker, cpu_queue: CpuQueue
) -> None:
    run = submit_yaml(document({"stages": [stage("a"), stage("b", "a"), stage("c", "a")]}))
    reconcile_until_resent()
    assert len(cpu_queue) == 2
    start_worker("one", concurrency=2)
    assert run.wait(WAIT_SEC) is State.DONE
    begun = [event.stage for event in run.events() if (event.kind, event.state) == ("shard", "running")]
    assert sorted(begun) == ["a", "b", "c"]


@ON_BOTH_BROKERS
def test_the_command_sends_again_what_a_purged_queue_lost(start_worker: StartWorker, cpu_queue: CpuQueue) -> None:
    run = submit_yaml(document({"stages": [stage("a"), stage("b", "a")]}))
    assert cpu_queue.flush() == 1
    command = [*(sys.executable, "-m", "scheduler.cli"), "reconcile", "--every", "0.2s", "--grace", f"{GRACE_SEC}s"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            said = process.stdout.readline()
            start_worker("one")
            assert run.wait(WAIT_SEC) is State.DONE
        finally:
            process.kill()
    assert "neither message nor worker for a[0]" in said
    assert run.result()["message"] == "b"


@ON_BOTH_BROKERS
@pytest.mark.parametrize("lost", ["b", "last", "finish"])
def test_a_continuation_that_was_never_sent_is_made_up_for(
    start_worker: StartWorker, cpu_queue: CpuQueue, tmp_path: Path, lost: str
) -> None:
    """The worker dies between a commit and what follows: the message that went with it is gone."""
    stages = [stage("a"), stage("b", "a"), stage("c", "a"), stage("last", "b", "c", message="${b.message}")]
    run = submit_yaml(document({"stages": stages}))
    upstream = {"b": {"a"}, "last": {"a", "b", "c"}, "finish": {"a", "b", "c", "last"}}[lost]
    cpu_queue.flush()
    ledger = Ledger.connect()
    for name in ("a", "b", "c", "last"):
        if name in upstream:
            _run_here(ledger, run, name)
    reconcile_until_resent()
    start_worker("one", concurrency=2)
    assert run.wait(WAIT_SEC) is State.DONE
    assert run.result()["message"] == "b"
    for name in ("a", "b", "c", "last"):
        assert len(attempts_in_store(tmp_path / "results", run, name, 0)) == 1


@ON_BOTH_BROKERS
@pytest.mark.parametrize("done", [0, 2, 3])
def test_a_split_stage_goes_on_with_the_shards_that_are_open(
    start_worker: StartWorker, cpu_queue: CpuQueue, done: int
) -> None:
    run = submit_yaml(document({"taskType": "echo", "data": rows(3), **SHARDED}))
    cpu_queue.flush()
    ledger = Ledger.connect()
    _run_here(ledger, run, "echo", "scatter")
    for shard in range(done):
        _run_here(ledger, run, "echo", str(shard))
    reconcile_until_resent()
    start_worker("one")
    assert run.wait(WAIT_SEC) is State.DONE
    assert [item["output"] for item in run.result()["items"]] == ["row 0", "row 1", "row 2"]
    begun = [event.shard for event in run.events() if (event.kind, event.state) == ("shard", "running")]
    assert sorted(begun) == ["0", "1", "2", "gather", "scatter"]


def _run_here(ledger: Ledger, run: Run, name: str, shard: str = "0") -> None:
    """An attempt that commits, and after which nothing is sent."""
    from mloc_tasks.attempt import run_attempt
    from mloc_tasks.work import execute, split
    from mloc_tasks.workplace import get_workplace

    get_workplace.cache_clear()
    work = split if shard == "scatter" else execute
    outcome = run_attempt(get_workplace(), run.id, name, shard, task_id="t", worker="here", returns=0, work=work)
    assert outcome.state is State.DONE
    get_workplace.cache_clear()


def test_deliveries_that_the_broker_forgot_are_made_up_for(start_worker: StartWorker, tmp_path: Path) -> None:
    first = start_worker("first")
    run = submit_yaml(document({"taskType": "slow", "data": rows(2), "seconds": 60, "quick_from": 2}))
    wait_for_attempt(run, stage="slow")
    ledger = Ledger.connect()
    assert ledger.client.delete(ledger.keys.unacked, ledger.keys.unacked_index) == 2
    kill_worker(first)
    start_worker("second")
    reconcile_until_resent(reconciler(grace_sec=2 * TIMEOUT_SEC))
    assert run.wait(WAIT_SEC) is State.DONE
    assert attempts_in_store(tmp_path / "results", run, "slow", 0) == ["2"]


@ON_BOTH_BROKERS
def test_a_cancelled_run_whose_workers_are_gone_is_ended(start_worker: StartWorker) -> None:
    first = start_worker("first")
    stages = [{"name": "slow", "taskType": "slow", "data": rows(60), "seconds": 1}, stage("after", "slow")]
    run = submit_yaml(document({"stages": stages}))
    wait_for_attempt(run, stage="slow")
    kill_worker(first)
    assert run.cancel() is State.RUNNING
    assert reconcile_until_resent() == ["cancelled, and none of its workers lives"]
    assert run.status().state is State.CANCELLED
    shard = Ledger.connect().shard(run.id, "slow", "0")
    assert shard is not None
    assert (shard.state, shard.holder) == (State.CANCELLED, "")


def picture(run: Run, **changes: Any) -> Picture:
    status = run.status()
    fields: dict[str, Any] = {
        "run": status.run,
        "stages": status.stages,
        "next": frozenset({("a", "0")}),
        "claimed": frozenset(),
        "activity": Activity(),
        "messages": None,
        "now": time.time(),
    }
    return Picture(**{**fields, **changes})


def test_where_messages_cannot_be_seen_stillness_and_claims_decide(start_worker: StartWorker) -> None:
    run = submit_yaml(document({"stages": [stage("a"), stage("b", "a")]}))
    ledger = Ledger.connect()
    assert decide(picture(run), grace_sec=1).action is Action.RESEND
    assert decide(picture(run, claimed=frozenset({("a", "0")})), grace_sec=1).action is Action.LEAVE
    assert decide(picture(run, activity=Activity(anything=True)), grace_sec=1).action is Action.LEAVE
    assert ledger.note_resent(run.id, resends=0, reason="test")
    assert not ledger.note_resent(run.id, resends=0, reason="by another at the same time")
    assert ledger.note_resent(run.id, resends=1, reason="test")
    now = run.status().run.resent
    assert now is not None
    assert decide(picture(run, now=now + 3), grace_sec=1).action is Action.LEAVE  # the pause doubles
    assert decide(picture(run, now=now + 5), grace_sec=1).action is Action.RESEND
    assert decide(picture(run, now=now + 3, messages=RunMessages()), grace_sec=1).action is Action.RESEND


def test_an_amqp_broker_cannot_be_looked_into(start_worker: StartWorker) -> None:
    from celery import Celery

    assert can_look_into(sending_app(get_settings()))
    assert not can_look_into(Celery("other", broker="amqp://nowhere", set_as_current=False))


def test_a_hundred_thousand_messages_are_read_in_seconds(start_worker: StartWorker) -> None:
    run = submit_yaml(document({"stages": [stage("a"), stage("b", "a")]}))
    ledger = Ledger.connect()
    key = next(key for key in queue_keys(ledger.keys.prefix, "cpu") if ledger.client.llen(key))
    text = ledger.client.lindex(key, 0)
    message = json.loads(text)
    body = json.loads(base64.b64decode(message["body"]))
    body[0][0] = "another-run"
    message["body"] = base64.b64encode(json.dumps(body).encode()).decode()
    other = json.dumps(message)
    with ledger.client.pipeline(transaction=False) as pipe:
        for _ in range(100):
            pipe.lpush(key, *[other] * 1_000)
        pipe.execute()
    begun = time.process_time()
    found = find_messages(ledger.client, ledger.keys, ["cpu"], [run.id])
    took = time.process_time() - begun
    assert found[run.id].shards == {("a", "0")}
    assert took < 10, took  # of this process's CPU: what else the machine does is no matter
