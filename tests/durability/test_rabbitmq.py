"""What is RabbitMQ's own: its limits, its delays, its priorities, and what happens when it goes away."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mloc_tasks.configuration import sending_app
from mloc_tasks.ledger import Ledger, State
from mloc_tasks.rabbitmq import work_queue
from mloc_tasks.settings import get_settings, reset_settings
from scheduler import submit_yaml
from scheduler.backlog import rabbitmq_backlogs
from scheduler.embedded import LocalWorker, PrivateValkey
from tests.durability import rabbitmq_node
from tests.durability.conftest import ON_RABBITMQ, StartWorker, document, rows
from tests.durability.rabbitmq_node import RabbitNode
from tests.durability.test_recovery import kill_worker, wait_for_attempt, wait_for_line
from tests.waiting import wait_until

WAIT_SEC = 60
CONSUMER_TIMEOUT_SEC = 2


@pytest.fixture
def impatient_node() -> Iterator[RabbitNode]:
    """A RabbitMQ that takes deliveries back after two seconds."""
    with rabbitmq_node.running(consumer_timeout_ms=CONSUMER_TIMEOUT_SEC * 1000) as node:
        yield node


@ON_RABBITMQ
def test_the_backlog_is_what_waits(broker: object, rabbitmq: RabbitNode) -> None:
    for _ in range(3):
        submit_yaml(document({"taskType": "echo", "message": "x"}))
    assert rabbitmq_backlogs(sending_app(get_settings()), ["nobody.declared.it", "cpu"]) == {
        "nobody.declared.it": 0,
        "cpu": 3,
    }


@ON_RABBITMQ
def test_a_message_outlives_twenty_deaths_of_its_worker(broker: object, rabbitmq: RabbitNode) -> None:
    submit_yaml(document({"taskType": "echo", "message": "x"}))
    for _ in range(25):
        with rabbitmq.connect() as connection:
            message = connection.channel().basic_get("cpu")
            assert message is not None
    assert message.headers["x-delivery-count"] == 24


def test_queues_whose_names_end_alike_do_not_get_each_others_delayed_messages() -> None:
    keys = {work_queue(name).routing_key for name in ("h100", "gpu.h100", "gpu%2Eh100")}
    assert len(keys) == 3
    assert not any("." in key for key in keys)


@ON_RABBITMQ
@pytest.mark.parametrize("timeout_sec", [10.0])
def test_a_dead_workers_shard_is_taken_over_as_soon_as_its_lease_has_ended(
    start_worker: StartWorker, timeout_sec: float, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MLOC_VISIBILITY_TIMEOUT_SEC", str(timeout_sec))
    reset_settings()
    first = start_worker("first")
    run = submit_yaml(document({"taskType": "slow", "data": rows(4), "seconds": 60, "quick_from": 2}))
    wait_for_attempt(run, stage="slow")
    start_worker("second")
    wait_for_line(tmp_path / "second" / "worker.log", " ready.")
    killed = kill_worker(first)
    taken_over = wait_for_attempt(run, stage="slow", attempt=2)
    assert taken_over - killed < timeout_sec + 4  # delays that only double come to 7 s and 15 s
    assert run.wait(WAIT_SEC) is State.DONE


def test_a_stage_longer_than_the_brokers_consumer_timeout_runs_once(
    impatient_node: RabbitNode, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    request.getfixturevalue("broker")
    monkeypatch.setenv("MLOC_BROKER_URL", impatient_node.url)
    reset_settings()
    log = tmp_path / "worker.log"
    worker = LocalWorker(("cpu",), log=log, concurrency=1)
    worker.start()
    try:
        spec = {"taskType": "slow", "data": rows(5), "seconds": CONSUMER_TIMEOUT_SEC}
        run = submit_yaml(document(spec))
        assert run.wait(WAIT_SEC) is State.DONE
        shard = next(Ledger.connect().shards(run.id, "slow"))
        assert shard.attempt == 1
    finally:
        worker.stop(idle=True)
    assert "delivery acknowledgement on channel 1 timed out" in log.read_text()


@ON_RABBITMQ
def test_a_broken_connection_to_the_broker_interrupts_nothing(
    start_worker: StartWorker, rabbitmq: RabbitNode, tmp_path: Path
) -> None:
    start_worker("one")
    run = submit_yaml(document({"taskType": "slow", "data": rows(4), "seconds": 1.0}))
    wait_for_attempt(run, stage="slow")
    rabbitmq.close_connections()
    assert run.wait(WAIT_SEC) is State.DONE
    assert next(Ledger.connect().shards(run.id, "slow")).attempt == 1
    log = tmp_path / "one" / "worker.log"
    wait_until(lambda: log.read_text().count("Connected to amqp://") >= 2, why=log.read_text)


@ON_RABBITMQ
def test_a_restart_of_the_broker_interrupts_and_loses_nothing(start_worker: StartWorker, rabbitmq: RabbitNode) -> None:
    start_worker("one", concurrency=2)
    spec = {"taskType": "slow", "data": rows(12), "seconds": 0.4}
    run = submit_yaml(document({**spec, "parallel": {"enabled": True, "shard_size": 2}}))
    for event in run.events(follow=True):
        if event.kind == "shard" and event.shard.isdigit() and event.state == "done":
            break
    rabbitmq.stop()
    rabbitmq.start()
    assert run.wait(WAIT_SEC) is State.DONE
    assert [item["output"] for item in run.result()["items"]] == [f"row {number}!" for number in range(12)]
    assert {shard.attempt for shard in Ledger.connect().shards(run.id, "slow")} == {1}


@ON_RABBITMQ
def test_the_ledgers_redis_may_restart_beside_it(start_worker: StartWorker, broker: PrivateValkey) -> None:
    start_worker("one")
    run = submit_yaml(document({"taskType": "slow", "data": rows(4), "seconds": 0.5}))
    wait_for_attempt(run, stage="slow")
    broker.stop()
    broker.start()
    assert run.wait(WAIT_SEC) is State.DONE
