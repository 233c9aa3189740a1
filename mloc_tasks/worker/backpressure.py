"""A worker takes no more shards than its hosts can work on."""

from __future__ import annotations

import contextlib
import math
import os
import time
from types import MethodType
from typing import Any

from celery import bootsteps

from mloc_tasks import intake
from mloc_tasks.signatures import SHARD, shard_name
from mloc_tasks.worker.taken import reserved

PATIENCE_SEC = 0.5  # most shards have their place by then


class Backpressure(bootsteps.StartStopStep):  # type: ignore[misc]  # celery ships no types
    """While a shard that was taken has no place yet, no other that needs one is taken.

    It matters where many threads share few hosts (`-P threads -c 16`): what waits here for a host that is full could be
    served by another worker. So one shard at most waits, and each whose model is being fetched. What is light passes
    one that waits for long: the splitting, merging and ending of runs, and stages that need no host. A pool of
    processes takes one message for each of its children anyway. Needs a broker whose transport asks before it takes a
    message: Redis; RabbitMQ sends what the prefetch count allows.
    """

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **options: Any) -> None:
        super().__init__(consumer, **options)
        self._woken, self._wake = -1, -1
        self._waiting_since: dict[str, float] = {}  # by the request's id

    def start(self, consumer: Any) -> None:
        channel: Any = consumer.task_consumer.channel
        if not hasattr(channel, "task_to_pass_over") or not _shares_hosts(consumer.pool) or consumer.hub is None:
            return
        before = channel.qos.can_consume

        def can_consume(_: Any) -> bool:
            known = self._waiting_since
            self._waiting_since = {
                request.id: known.get(request.id, time.monotonic()) for request in reserved() if not _has_place(request)
            }
            if self._waiting_since.keys() - known:  # the loop sleeps until something comes
                consumer.hub.call_later(PATIENCE_SEC, lambda: None)
            newest = max(self._waiting_since.values(), default=-math.inf)
            return before() and time.monotonic() - newest >= PATIENCE_SEC

        channel.qos.can_consume = MethodType(can_consume, channel.qos)
        channel.task_to_pass_over = lambda: SHARD if self._waiting_since else ""
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


def _shares_hosts(pool: Any) -> bool:
    return "thread" in type(pool).__module__


def _has_place(request: Any) -> bool:
    name = shard_name(request.name, request.args) if request.name == SHARD else None
    return name is None or intake.is_placed(name)
