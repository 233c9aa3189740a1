"""A worker takes no more shards than its hosts can work on."""

from __future__ import annotations

from types import MethodType
from typing import Any

from celery import bootsteps


class Backpressure(bootsteps.StartStopStep):  # type: ignore[misc]  # celery ships no types
    """While a shard waits in this process for a host to have room, no further message is taken.

    It matters where many threads share few hosts (`-P threads -c 16`): the others can be served by another worker, and
    are not claimed here to no purpose. A pool of processes takes one message for each of its children anyway. Needs a
    broker whose transport asks before it takes a message: Redis; RabbitMQ sends what the prefetch count allows.
    """

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def start(self, consumer: Any) -> None:
        qos: Any = getattr(consumer.task_consumer.channel, "qos", None)
        if not hasattr(qos, "can_consume") or "thread" not in type(consumer.pool).__module__:
            return
        before = qos.can_consume

        def can_consume(_: Any) -> bool:
            from mloc_tasks.hosting import hosts

            return not hosts().has_line and before()

        qos.can_consume = MethodType(can_consume, qos)
