"""A worker takes no more shards than its hosts can work on."""

from __future__ import annotations

import contextlib
import os
from types import MethodType
from typing import Any

from celery import bootsteps
from celery.worker import state

from mloc_tasks import intake
from mloc_tasks.signatures import SHARD, shard_name


class Backpressure(bootsteps.StartStopStep):  # type: ignore[misc]  # celery ships no types
    """While a shard that was taken has no place yet, no further message is.

    It matters where many threads share few hosts (`-P threads -c 16`): what waits here for a host that is full could be
    served by another worker. So one shard at most waits. A pool of processes takes one message for each of its children
    anyway. Needs a broker whose transport asks before it takes a message: Redis; RabbitMQ sends what the prefetch count
    allows.
    """

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **options: Any) -> None:
        super().__init__(consumer, **options)
        self._woken, self._wake = -1, -1

    def start(self, consumer: Any) -> None:
        qos: Any = getattr(consumer.task_consumer.channel, "qos", None)
        if not hasattr(qos, "can_consume") or "thread" not in type(consumer.pool).__module__ or consumer.hub is None:
            return
        before = qos.can_consume

        def can_consume(_: Any) -> bool:
            return before() and all(map(_has_place, list(state.reserved_requests)))

        qos.can_consume = MethodType(can_consume, qos)
        if self._wake < 0:
            self._woken, self._wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
            intake.listen(self._wake_loop)
        consumer.hub.add_reader(self._woken, self._drain)

    def _wake_loop(self) -> None:
        """Have the worker's loop, which sleeps until something comes, ask again. From any thread."""
        with contextlib.suppress(BlockingIOError):  # it is full: the loop wakes up anyway
            os.write(self._wake, b".")

    def _drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._woken, 4096)


def _has_place(request: Any) -> bool:
    name = shard_name(request.name, request.args) if request.name == SHARD else None
    return name is None or intake.is_placed(name)
