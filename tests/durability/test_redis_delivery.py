"""A message of Redis is always in its queue or noted as delivered, and wakes a worker that waits."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from queue import Empty
from types import SimpleNamespace
from typing import Any

import pytest
from kombu import Connection
from kombu.simple import SimpleQueue

from mloc_tasks.broker import install_transports
from mloc_tasks.configuration import celery_settings, sending_app
from mloc_tasks.ledger.connection import Client, connect
from mloc_tasks.settings import get_settings
from mloc_tasks.signatures import LIGHT
from mloc_tasks.worker.visibility import held_deliveries
from scheduler.embedded import PrivateValkey

WAIT_SEC = 30


@pytest.fixture(params=["", "team:"])
def prefix(request: pytest.FixtureRequest) -> str:
    """All keys begin with it."""
    return str(request.param)


@pytest.fixture
def connection(broker: PrivateValkey, prefix: str) -> Iterator[Connection]:
    install_transports()
    options = celery_settings(get_settings())["broker_transport_options"] | {"global_keyprefix": prefix}
    with Connection(get_settings().celery_url, transport_options=options) as connection:
        yield connection


@pytest.fixture
def client(broker: PrivateValkey) -> Client:
    return connect(get_settings())


def ask(queue: SimpleQueue) -> Any:
    """Ask for a message, as a worker's loop does, and leave its answer unread. Gives the channel."""
    channel = queue.channel
    queue.consumer.consume()
    channel.connection.cycle.on_poll_start()
    return channel


def forget_tokens(client: Client) -> None:
    """As if who had put a message in had died before the token."""
    for key in client.scan_iter("*wake"):
        client.delete(key)


def test_a_message_that_its_worker_never_read_is_noted_and_comes_again(
    connection: Connection, client: Client, prefix: str
) -> None:
    with connection.SimpleQueue("work") as queue:
        queue.put("one")
        channel = ask(queue)
        tags = client.zrange(f"{prefix}unacked_index", 0, -1)
        while not tags:  # the script is on its way
            tags = client.zrange(f"{prefix}unacked_index", 0, -1)
        assert client.hkeys(f"{prefix}unacked") == tags
        assert not client.exists(f"{prefix}work")
        channel.client.connection.disconnect()  # the worker dies, and the answer with it
        client.zadd(f"{prefix}unacked_index", {tags[0]: 0})  # its time is over
        channel.connection.cycle.maybe_restore_messages()
        again = queue.get(timeout=WAIT_SEC)
        assert again.payload == "one"
        assert again.headers["redelivered"]
        again.ack()
    assert not client.exists(f"{prefix}unacked", f"{prefix}unacked_index")


def test_a_worker_that_dies_while_it_looks_for_lost_messages_holds_them_up_no_longer_than_its_own(
    connection: Connection,
) -> None:
    with connection.SimpleQueue("work") as queue:
        assert 0 < queue.channel.unacked_mutex_expire <= queue.channel.visibility_timeout


def test_messages_come_by_priority_and_then_as_they_were_sent(connection: Connection) -> None:
    with connection.SimpleQueue("work") as queue:
        for word, priority in (("late", 9), ("first", 3), ("second", 3)):
            queue.put(word, priority=priority)
        assert [queue.get(timeout=WAIT_SEC).payload for _ in range(3)] == ["first", "second", "late"]


def test_a_given_back_message_is_the_next_for_others_and_passed_over_for_a_while_by_who_gave_it_back(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mloc_tasks.redis_delivery.PASS_OVER_SEC", WAIT_SEC)
    with connection.SimpleQueue("work") as queue, connection.clone() as other, other.SimpleQueue("work") as others:
        for word in ("one", "two", "three", "four"):
            queue.put(word)
        queue.get(timeout=WAIT_SEC).requeue()
        assert queue.get(timeout=WAIT_SEC).payload == "two"
        assert others.get(timeout=WAIT_SEC).payload == "one"
        queue.get(timeout=WAIT_SEC).requeue()
        assert queue.get(timeout=WAIT_SEC).payload == "four"


def test_who_gave_a_message_back_does_not_keep_it_from_coming_again_when_the_next_one_dies(
    connection: Connection, client: Client, prefix: str
) -> None:
    with connection.SimpleQueue("work") as queue, connection.clone() as other, other.SimpleQueue("work") as others:
        worker = SimpleNamespace(task_consumer=queue.consumer)
        queue.put("one")
        message = queue.get(timeout=WAIT_SEC)
        assert held_deliveries(worker) == [message.delivery_tag]
        message.requeue()
        assert others.get(timeout=WAIT_SEC).payload == "one"
        assert client.zrange(f"{prefix}unacked_index", 0, -1) == [message.delivery_tag]
        assert held_deliveries(worker) == []


def test_a_task_that_is_passed_over_is_left_to_others_but_where_it_is_light(connection: Connection) -> None:
    with connection.SimpleQueue("work") as queue, connection.clone() as other, other.SimpleQueue("work") as others:
        queue.put("heavy", headers={"task": "shard"})
        queue.put("light", headers={"task": "shard", LIGHT: True})
        queue.put("other", headers={"task": "gather"})
        queue.channel.task_to_pass_over = lambda: "shard"
        assert [queue.get(timeout=WAIT_SEC).payload for _ in range(2)] == ["light", "other"]
        with pytest.raises(Empty):
            queue.get(timeout=0.1)
        assert others.get(timeout=WAIT_SEC).payload == "heavy"


def test_who_passes_over_a_message_leaves_its_token_to_others_and_takes_it_in_the_end(
    connection: Connection, client: Client, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mloc_tasks.redis_delivery.PASS_OVER_SEC", WAIT_SEC)
    with connection.SimpleQueue("work") as queue:
        queue.put("one")
        queue.get(timeout=WAIT_SEC).requeue()
        with pytest.raises(Empty):
            queue.get(timeout=0.1)
        assert client.exists(f"{prefix}work\x06\x16wake")
        passed_over = queue.channel.qos._given_back
        passed_over.update(dict.fromkeys(passed_over, 0.0))
        assert queue.get(timeout=WAIT_SEC).payload == "one"


@pytest.mark.parametrize("how", ["sent", "batch", "restored"])
def test_a_waiting_worker_is_woken(connection: Connection, client: Client, prefix: str, how: str) -> None:
    with connection.SimpleQueue("work") as held, connection.clone() as other, other.SimpleQueue("work") as queue:
        if how == "restored":
            held.put("one")
            message = held.get(timeout=WAIT_SEC)
        ask(queue).brpop_timeout = 10 * WAIT_SEC  # so only a token can wake it
        with ThreadPoolExecutor() as threads:
            waiting = threads.submit(queue.get, timeout=WAIT_SEC)
            while not client.info("clients")["blocked_clients"]:
                pass
            if how == "restored":
                message.requeue()
            elif how == "sent":
                held.put("one")
            else:
                with held.producer.batch():
                    held.put("one")
            assert waiting.result().payload == "one"
        assert not client.exists(f"{prefix}work\x06\x16wake")


def test_a_message_without_a_token_is_found(connection: Connection, client: Client) -> None:
    with connection.SimpleQueue("work") as queue:
        queue.put("one")
        forget_tokens(client)
        assert queue.get(timeout=WAIT_SEC).payload == "one"


def test_tokens_without_messages_do_no_harm(connection: Connection, client: Client, prefix: str) -> None:
    with connection.SimpleQueue("work") as queue:
        queue.put("one")
        queue.clear()
        assert client.exists(f"{prefix}work\x06\x16wake")
        with pytest.raises(Empty):
            queue.get(timeout=0.1)
        assert not client.exists(f"{prefix}work\x06\x16wake")
        queue.put("two")
        assert queue.get(timeout=WAIT_SEC).payload == "two"


def test_nothing_is_taken_while_redis_is_full(connection: Connection, client: Client, prefix: str) -> None:
    with connection.SimpleQueue("work") as queue:
        queue.put("one")
        client.config_set("maxmemory", 1)
        with pytest.raises(Empty):
            ask(queue)._brpop_read()
        assert client.llen(f"{prefix}work") == 1
        client.config_set("maxmemory", 0)
        assert queue.get(timeout=WAIT_SEC).payload == "one"


def test_a_channel_that_once_took_what_nobody_acknowledges_notes_its_deliveries(
    connection: Connection, client: Client, prefix: str
) -> None:
    """As a worker's does: it asks the others who they are before its work begins."""
    sending_app(get_settings()).control.inspect(timeout=0.1, connection=connection).hello("test@here")
    client.config_resetstat()
    with SimpleQueue(connection.default_channel, "work") as queue:
        queue.put("one")
        assert queue.get(timeout=WAIT_SEC).payload == "one"
    assert client.hlen(f"{prefix}unacked") == 1
    assert "cmdstat_eval" in client.info("commandstats")


@pytest.mark.parametrize("text", ["5", "{}", "not JSON", '{"properties": {"delivery_tag": null, "delivery_info": {}}}'])
def test_what_is_no_message_ends_one_worker_at_most(
    connection: Connection, client: Client, prefix: str, text: str
) -> None:
    with connection.SimpleQueue("work") as queue:
        client.rpush(f"{prefix}work", text)
        queue.put("one")
        with pytest.raises((ValueError, TypeError, LookupError, AttributeError)):
            queue.get(timeout=WAIT_SEC)
        assert not client.exists(f"{prefix}unacked", f"{prefix}unacked_index")
        assert queue.get(timeout=WAIT_SEC).payload == "one"


def test_a_message_that_cannot_be_read_is_not_given_to_the_next_worker(
    connection: Connection, client: Client, prefix: str
) -> None:
    with connection.SimpleQueue("work") as queue:
        queue.put("one")
        key = f"{prefix}work"
        client.lset(key, 0, client.lindex(key, 0).replace('"base64"', '"base65"'))
        with pytest.raises(AttributeError):  # there is no base65
            queue.get(timeout=WAIT_SEC)
        assert not client.exists(key, f"{prefix}unacked", f"{prefix}unacked_index")


def test_what_nobody_acknowledges_is_not_noted(connection: Connection, client: Client, prefix: str) -> None:
    with connection.SimpleQueue("answers", no_ack=True) as queue:
        queue.put("one")
        assert queue.get(timeout=WAIT_SEC).payload == "one"
    assert not client.exists(f"{prefix}unacked", f"{prefix}unacked_index")
