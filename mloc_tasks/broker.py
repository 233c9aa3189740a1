"""Redis as Celery's broker: kombu's transports, less a fault that ends workers."""

from __future__ import annotations

from typing import Any

import redis
from kombu import transport
from kombu.transport.redis import Channel, SentinelChannel, SentinelTransport, Transport


class HonestWhenClosed:
    """A channel that says of its lost connection that it is lost.

    kombu closes a channel by giving its messages back, and acknowledges what a task has ended with meanwhile. Where
    Redis was away at the first try the channel has no connection left to read its settings from: an AttributeError,
    which no caller expects of a broker, ended the worker [kombu 5.7.0, transport/redis.py, Channel._connparams].
    """

    connection: Any

    def _connparams(self, *args: Any, **kwargs: Any) -> Any:
        if getattr(self.connection, "client", None) is None:
            raise redis.exceptions.ConnectionError("this channel's connection to Redis is closed")
        return super()._connparams(*args, **kwargs)  # type: ignore[misc]  # of the channel beside it


class RedisChannel(HonestWhenClosed, Channel):
    """At one server."""


class RedisTransport(Transport):
    Channel = RedisChannel


class SentinelRedisChannel(HonestWhenClosed, SentinelChannel):
    """At the server that Sentinels name."""


class SentinelRedisTransport(SentinelTransport):
    Channel = SentinelRedisChannel


def install_transports() -> None:
    """Let `redis://`, `rediss://` and `sentinel://` of this process mean these."""
    here = f"{__name__}:"
    transport.TRANSPORT_ALIASES.update(
        redis=f"{here}RedisTransport", rediss=f"{here}RedisTransport", sentinel=f"{here}SentinelRedisTransport"
    )
