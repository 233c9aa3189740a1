"""Redis as Celery's broker: kombu's transports, less the faults that end workers, forget a child or lose a message."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis
from celery import Celery
from kombu import transport
from kombu.transport import virtual
from kombu.transport.redis import Channel, SentinelChannel, SentinelTransport, Transport
from redis.backoff import ExponentialWithJitterBackoff
from redis.retry import Retry

from mloc_tasks.redis_delivery import NotingChannel, NotingQoS

RETRIES = 3  # of a command on a connection that broke; the worker's event loop waits meanwhile
RETRY_SEC = (0.05, 0.2)  # between two tries: at first, and at most


class ForgetfulQoS(NotingQoS):
    """What a channel holds unacknowledged; what is over it holds no longer, also where Redis could not be told.

    kombu keeps it: the worker would have one place less for as long as it lives, and renew a message that nobody needs.
    So it comes again when its time is up, and finds its shard over.
    """

    def ack(self, delivery_tag: str) -> None:
        try:
            super().ack(delivery_tag)  # type: ignore[no-untyped-call]
        except redis.exceptions.RedisError:
            virtual.QoS.ack(self, delivery_tag)
            raise


class SteadyChannel(NotingChannel):
    """What MLOC's channels do better than kombu's when connections break.

    kombu closes a channel by giving its messages back, and acknowledges what a task has ended with meanwhile. Where
    Redis was away at the first try the channel has no connection left to read its settings from: an AttributeError,
    which no caller expects of a broker, ended the worker [kombu 5.7.0, transport/redis.py, Channel._connparams].
    """

    connection: Any
    pool: Any
    QoS = ForgetfulQoS
    supports_batch_publish = True  # kombu: not where commands are retried; but a message that comes twice is harmless
    _client: Any = None

    def _create_client(self, asynchronous: bool = False) -> Any:
        """One client for each pool of connections. kombu makes one for each message: a tenth of a worker's time."""
        if asynchronous:
            return super()._create_client(asynchronous=True)  # type: ignore[misc]  # of the channel beside it
        pool = self.pool
        if self._client is None or self._client.connection_pool is not pool:
            self._client = super()._create_client()  # type: ignore[misc]
        return self._client

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:
        if getattr(self.connection, "client", None) is None:
            raise redis.exceptions.ConnectionError("this channel's connection to Redis is closed")
        parameters: dict[str, Any] = super()._connparams(asynchronous)  # type: ignore[misc]  # of the channel beside it
        if not asynchronous:  # that one waits for messages: what it asked for is not to be read from another connection
            backoff = ExponentialWithJitterBackoff(base=RETRY_SEC[0], cap=RETRY_SEC[1])
            parameters["retry"] = Retry(backoff, RETRIES)
        return parameters


class RedisChannel(SteadyChannel, Channel):
    """At one server."""


class RedisTransport(Transport):
    Channel = RedisChannel


class SentinelRedisChannel(SteadyChannel, SentinelChannel):
    """At the server that Sentinels name."""


class SentinelRedisTransport(SentinelTransport):
    Channel = SentinelRedisChannel


class BatchingCelery(Celery):  # type: ignore[misc]  # celery ships no types
    """Celery that can send many messages in one round trip, where the broker knows how."""

    @contextmanager
    def sending_together(self) -> Iterator[None]:
        """What this thread sends inside leaves in batches, the last of it at the end. Raises `BatchPublishError` where
        it is not known what has arrived."""
        with super().producer_or_acquire() as producer, producer.batch():
            _sending.producer = producer
            try:
                yield
            finally:
                _sending.producer = None

    def producer_or_acquire(self, producer: Any = None) -> Any:
        return super().producer_or_acquire(producer or getattr(_sending, "producer", None))


_sending = threading.local()


def install_transports() -> None:
    """Let `redis://`, `rediss://` and `sentinel://` of this process mean these."""
    here = f"{__name__}:"
    ours = {
        "redis": f"{here}RedisTransport",
        "rediss": f"{here}RedisTransport",
        "sentinel": f"{here}SentinelRedisTransport",
    }
    transport.TRANSPORT_ALIASES.update(ours)
    for name in ours:
        transport._transport_cache.pop(name, None)  # what it meant before
