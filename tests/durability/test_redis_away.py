"""Redis restarts under running shards: they wait for it, and what was sent twice counts once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import redis
from kombu import Connection

from mloc_tasks.broker import install_transports
from mloc_tasks.ledger import ClaimStatus, Failure, Ledger, State
from mloc_tasks.ledger.connection import connect
from mloc_tasks.settings import get_settings
from scheduler import submit_yaml
from scheduler.embedded import PrivateValkey
from tests.durability.conftest import document


def test_a_patient_connection_waits_for_a_redis_that_is_away(broker: PrivateValkey) -> None:
    client = connect(get_settings(), patient=True)
    client.set("before", "1")
    broker.stop()
    with ThreadPoolExecutor() as threads:
        answer = threads.submit(client.set, "after", "2")
        broker.start()  # not in a thread: the server ends with the thread that started it
        assert answer.result(timeout=30)


def test_the_end_of_an_attempt_may_be_sent_twice(broker: PrivateValkey) -> None:
    """As when the connection breaks between the command and its answer."""
    ledger = Ledger.connect()
    run = submit_yaml(document({"taskType": "echo", "message": "x"}))
    claimed = {"worker": "w", "holder": "1:1", "task_id": "t", "whole": True}
    assert ledger.claim(run.id, "echo", "0", **claimed).status is ClaimStatus.CLAIMED
    for _ in range(2):
        ledger.release(run.id, "echo", "0", attempt=1, error=Failure(message="away"))
    assert ledger.claim(run.id, "echo", "0", **claimed).status is ClaimStatus.CLAIMED
    for _ in range(2):
        ledger.commit(run.id, "echo", "0", attempt=2, state=State.DONE, whole=True)
    shard = next(ledger.shards(run.id, "echo"))
    assert (shard.state, shard.attempt, len(shard.history)) == (State.DONE, 2, 1)
    assert ledger.stages(run.id)[0].shards_done == 1


def test_what_a_worker_holds_is_acknowledged_on_a_cut_connection_and_forgotten_without_redis(
    broker: PrivateValkey,
) -> None:
    install_transports()
    client = connect(get_settings())
    with Connection(get_settings().celery_url) as connection, connection.SimpleQueue("q") as queue:
        for word in ("one", "two"):
            queue.put(word)
        first, second = queue.get(timeout=10), queue.get(timeout=10)
        client.client_kill_filter(_type="normal", skipme=True)
        first.ack()
        assert client.zrange("unacked_index", 0, -1) == [second.delivery_tag]
        qos = second.channel.qos
        broker.stop()
        with pytest.raises(redis.exceptions.ConnectionError):
            second.ack()
        qos._flush()
        assert not qos._delivered
        broker.start()


def test_a_closed_channel_says_that_its_connection_is_lost(broker: PrivateValkey) -> None:
    install_transports()
    connection = Connection(get_settings().celery_url)
    with connection.SimpleQueue("q") as queue:
        queue.put("one")
        message = queue.get(timeout=10)
        message.channel._pool = None
        message.channel.connection.client = None
        with pytest.raises(connection.connection_errors):
            message.ack()
