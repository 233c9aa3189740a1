"""Shards go to the worker that holds their model, but do not wait for it long."""

from __future__ import annotations

from typing import Any

import pytest

from mloc_tasks.ledger import State
from mloc_tasks.warmth import warm_key
from mloc_tasks.workplace import get_workplace
from scheduler import Run, submit_yaml
from tests.durability.conftest import StartWorker, document
from tests.durability.test_recovery import WAIT_SEC, kill_worker, wait_for_attempt


@pytest.fixture(autouse=True)
def _fresh_workplace() -> None:
    get_workplace.cache_clear()


def spec(**more: Any) -> dict[str, Any]:
    return document({"taskType": "warm", "weights": "a", **more})


def served_by(run: Run) -> str:
    assert run.wait(WAIT_SEC) is State.DONE, run.status().run.error
    (begun,) = [event for event in run.events() if (event.kind, event.state) == ("shard", "running")]
    return str(begun.data["worker"])


def test_later_runs_of_a_model_go_to_the_worker_that_holds_it(start_worker: StartWorker) -> None:
    start_worker("one")
    start_worker("two")
    first = submit_yaml(spec())
    holder = served_by(first)
    later = []
    for _ in range(8):
        later.append(submit_yaml(spec()))
        assert served_by(later[-1]) == holder
    assert [run.result()["done"] for run in later] == list(range(2, 10))


def test_a_shard_does_not_wait_for_a_busy_holder(start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLOC_WARM_WAIT_SEC", "0.5")
    start_worker("one")
    holder = served_by(submit_yaml(spec()))
    start_worker("two")
    busy = submit_yaml(spec(seconds=30))
    wait_for_attempt(busy, stage="warm")
    assert served_by(submit_yaml(spec())) != holder
    assert busy.status().state is State.RUNNING
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
