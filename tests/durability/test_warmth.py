"""Shards go to the worker that holds their model, but do not wait for it long."""

from __future__ import annotations

from typing import Any

import pytest

from mloc_tasks import warmth
from mloc_tasks.executors.registry import plugin_task_types
from mloc_tasks.ledger import Ledger, State
from mloc_tasks.spec import load_workflow
from mloc_tasks.warmth import warm_key
from mloc_tasks.worker.registry import WorkerInfo, register
from mloc_tasks.workplace import get_workplace
from scheduler import Run, submit_yaml
from scheduler.embedded import PrivateValkey
from scheduler.submit import warm_queues
from tests.durability.conftest import ON_BOTH_BROKERS, StartWorker, document
from tests.durability.test_recovery import WAIT_SEC, kill_worker, wait_for_attempt
from tests.waiting import wait_until


@pytest.fixture(autouse=True)
def _fresh_workplace() -> None:
    get_workplace.cache_clear()


def spec(**more: Any) -> dict[str, Any]:
    return document({"taskType": "warm", "weights": "a", **more})


def served_by(run: Run) -> str:
    assert run.wait(WAIT_SEC) is State.DONE, run.status().run.error
    (begun,) = [event for event in run.events() if (event.kind, event.state) == ("shard", "running")]
    return str(begun.data["worker"])


@ON_BOTH_BROKERS
@pytest.mark.usefixtures("patient")
def test_later_runs_of_a_model_go_to_the_worker_that_holds_it(
    start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLOC_WARM_WAIT_SEC", "1000")
    start_worker("one")
    start_worker("two")
    first = submit_yaml(spec())
    holder = served_by(first)
    later = []
    for _ in range(8):
        later.append(submit_yaml(spec()))
        assert served_by(later[-1]) == holder
    assert [run.result()["done"] for run in later] == list(range(2, 10))


@ON_BOTH_BROKERS
@pytest.mark.usefixtures("patient")
def test_a_shard_does_not_wait_for_a_busy_holder(start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLOC_WARM_WAIT_SEC", "0.5")
    start_worker("one")
    holder = served_by(submit_yaml(spec()))
    start_worker("two")
    busy = submit_yaml(spec(seconds=1000))
    wait_for_attempt(busy, stage="warm")
    assert served_by(submit_yaml(spec())) != holder
    assert busy.status().state is State.RUNNING
    busy.cancel()


@pytest.mark.usefixtures("patient")
def test_beside_a_busy_holder_a_cold_worker_takes_what_waits_behind_the_shard_that_it_leaves(
    start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLOC_WARM_WAIT_SEC", "1000")
    start_worker("one")
    served_by(submit_yaml(spec()))
    busy = submit_yaml(spec(seconds=1000))
    wait_for_attempt(busy, stage="warm")
    start_worker("two")
    left = submit_yaml(spec())
    light = submit_yaml(document({"taskType": "echo", "message": "x"}))
    assert light.wait(WAIT_SEC) is State.DONE
    assert not any(event.state == "running" for event in left.events())
    assert served_by(submit_yaml(spec())) == "two@test"  # more than the holder could run at once
    assert served_by(left) == "two@test"  # which holds the model now
    busy.cancel()


def test_a_holder_that_died_is_not_waited_for(start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLOC_WARM_WAIT_SEC", "1000")
    holder = start_worker("one")
    served_by(submit_yaml(spec()))
    kill_worker(holder)
    start_worker("two")
    assert served_by(submit_yaml(spec())) == "two@test"


def test_other_models_are_nobodys_business(start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLOC_WARM_WAIT_SEC", "1000")
    start_worker("one", concurrency=2)
    served_by(submit_yaml(spec()))
    assert served_by(submit_yaml(spec(weights="b"))) == "one@test"


def test_a_stage_whose_arguments_are_refused_has_no_warm_key_and_is_left_to_its_attempt() -> None:
    model = {"source": {"identifier": "m"}, "vllm": {"max_model_len": 3}}
    assert warm_key({"task_type": "inference", "model": model}) is not None
    twice = {**model, "vllm": {"maxModelLen": 3, "max_model_len": 4}}
    assert warm_key({"task_type": "inference", "model": twice}) is None


def test_a_run_is_sent_to_the_queue_whose_live_workers_hold_its_model(start_worker: StartWorker) -> None:
    worker = start_worker("one")
    workflow, other = (load_workflow(spec(weights=name), plugin_task_types=plugin_task_types()) for name in "ab")
    ledger = Ledger.connect()
    assert warm_queues(ledger, workflow) == {}
    served_by(submit_yaml(spec()))
    assert warm_queues(ledger, workflow) == {"warm": {"cpu"}}
    assert warm_queues(ledger, other) == {"warm": set()}
    worker.stop()
    wait_until(lambda: warm_queues(ledger, workflow) == {})


class Workers:
    """Workers that serve queues and hold the model `m`; a cold one asks which messages it should leave to them."""

    def __init__(self) -> None:
        ledger = Ledger.connect()
        self._redis = ledger.client, ledger.keys

    def add(self, name: str, *, queues: tuple[str, ...] = ("cpu",), concurrency: int = 1, alive: bool = True) -> None:
        client, keys = self._redis
        info = WorkerInfo(
            id=name,
            host="here",
            pid=1,
            queues=queues,
            concurrency=concurrency,
            pool="prefork",
            cpu=None,
            memory=None,
            gpus="",
            tags=(),
            versions={},
            started=0,
            last_seen=0,
        )
        register(client, keys, info, ttl_sec=1000)
        warmth.publish(client, keys, name, "m")
        if alive:
            client.set(keys.lease(name), "life")

    def leaves(self, message: str, *, most_sec: float = 1000, worker: str = "cold") -> bool:
        return warmth.leave(*self._redis, worker=worker, key="m", queue="cpu", task_id=message, most_sec=most_sec)

    def take(self, message: str) -> None:
        warmth.take(*self._redis, "m", message)


@pytest.fixture
def workers(broker: PrivateValkey) -> Workers:
    return Workers()


def test_only_live_holders_that_serve_the_queue_count(workers: Workers) -> None:
    assert not workers.leaves("one")
    workers.add("elsewhere", queues=("inference",))
    workers.add("dead", alive=False)
    assert not workers.leaves("one")
    workers.add("warm", queues=("inference", "cpu"))
    assert workers.leaves("one")
    assert not workers.leaves("one", worker="warm")


def test_no_more_is_left_than_the_holders_could_run_at_once(workers: Workers) -> None:
    workers.add("warm", concurrency=2)
    assert [workers.leaves(message) for message in ("one", "two", "three")] == [True, True, False]
    workers.take("three")
    workers.take("one")  # by the holder
    assert [workers.leaves(message) for message in ("two", "four", "five")] == [True, True, False]


def test_a_message_s_time_counts_over_all_workers_and_does_not_begin_anew(workers: Workers) -> None:
    workers.add("warm")
    assert workers.leaves("one")
    assert workers.leaves("one", worker="another cold one")
    assert not any(workers.leaves("one", most_sec=1e-6) for _ in range(2))
    client, keys = workers._redis
    assert client.ttl(keys.left("m")) > 86_400
