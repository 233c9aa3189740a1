"""The heartbeat that lets the broker's visibility timeout be short.

Redis as a broker gives a message to somebody else when nobody has acknowledged it for `visibility_timeout` seconds.
A shard may run for hours, so each worker keeps the messages that it holds visible as its own: it renews their score in
the broker's index, and with it the worker's lease in the ledger, which says that its claims are alive. When the worker
vanishes both stop, the messages go to the others within the timeout, and the claims may be taken over.

RabbitMQ sees by the connection whether a worker is alive, and needs no renewal: there only the lease is renewed.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

import redis
from celery import bootsteps

from mloc_tasks.ledger.connection import Client, connect
from mloc_tasks.ledger.keys import Keys
from mloc_tasks.rabbitmq import warn_of_limits
from mloc_tasks.settings import Settings, get_settings
from mloc_tasks.worker.life import this_life

logger = logging.getLogger("mloc.worker")

RENEWALS_PER_TIMEOUT = 6
LEASE_SHARE = 0.8  # the lease ends before the messages come back, so that whoever gets them may claim at once


class VisibilityHeartbeat(bootsteps.StartStopStep):  # type: ignore[misc]  # celery ships no types
    """Renews the worker's unacknowledged deliveries and its lease, every sixth of the visibility timeout.

    A thread with a connection of its own does it, so that neither a busy event loop nor a reconnect of the broker's
    connection silences it. It goes on while the consumer restarts, and ends with the worker.
    """

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **options: Any) -> None:
        super().__init__(consumer, **options)
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, consumer: Any) -> None:
        if self._thread is None:
            settings = get_settings()
            if settings.amqp:
                warn_of_limits(consumer)
            renewal = Renewal(consumer, settings)
            renewal.renew()
            self._thread = threading.Thread(target=self._beat, args=(renewal,), name="mloc-visibility", daemon=True)
            self._thread.start()

    def shutdown(self, consumer: Any) -> None:
        if self._thread is not None:
            self._stopping.set()
            self._thread.join(timeout=5)
            self._thread = None

    def _beat(self, renewal: Renewal) -> None:
        while not self._stopping.wait(renewal.interval_sec):
            renewal.renew()
        renewal.end()


class Renewal:
    """One worker's renewals."""

    def __init__(self, consumer: Any, settings: Settings) -> None:
        keys = Keys(settings.prefix)
        self._consumer = consumer
        self._client: Client = connect(settings)
        self._index = "" if settings.amqp else keys.unacked_index
        self._lease = keys.lease(settings.worker_name(consumer.hostname))
        self.interval_sec = settings.visibility_timeout_sec / RENEWALS_PER_TIMEOUT
        self._lease_ms = int(settings.visibility_timeout_sec * LEASE_SHARE * 1000)

    def renew(self) -> None:
        """Renew everything once. A Redis that does not answer is a warning: the next renewal may reach it."""
        now = time.time()
        tags = held_deliveries(self._consumer) if self._index else []
        try:
            with self._client.pipeline(transaction=False) as pipe:
                pipe.set(self._lease, this_life(), px=self._lease_ms)
                if tags:
                    pipe.zadd(self._index, dict.fromkeys(tags, now), xx=True)  # xx: never revive one that is over
                pipe.execute()
        except redis.exceptions.RedisError as error:
            logger.warning("lease not renewed, next try in %gs: %s", self.interval_sec, error)

    def end(self) -> None:
        """Give the lease up: this worker's claims are free at once."""
        try:
            self._client.delete(self._lease)
        except redis.exceptions.RedisError as error:
            logger.warning("lease not given up, it ends by itself: %s", error)
        self._client.close()


def held_deliveries(consumer: Any) -> list[str]:
    """Tags of the deliveries that are in the worker's hands: running, reserved, or waiting for their time.

    One that it gave back may be in another's by now, which it would keep from coming again when that one dies. kombu
    forgets what is over at the next delivery only.
    """
    task_consumer = getattr(consumer, "task_consumer", None)
    qos = getattr(getattr(task_consumer, "channel", None), "qos", None)
    # Copying a dict or a set is one step for other threads, which may change it before and after.
    delivered = list(getattr(qos, "_delivered", ()))
    over = set(getattr(qos, "_dirty", ()))
    return [tag for tag in delivered if tag not in over]
