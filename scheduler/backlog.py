"""How many messages wait in a queue, read from the broker."""

from __future__ import annotations

from collections.abc import Sequence

from mloc_tasks.configuration import PRIORITIES
from mloc_tasks.ledger.connection import Client

PRIORITY_SEPARATOR = "\x06\x16"  # between a queue's name and its priority step [kombu/transport/redis.py]


def queue_keys(prefix: str, queue: str) -> list[str]:
    """The Redis lists that hold a queue's messages, one for each priority."""
    return [f"{prefix}{queue}"] + [f"{prefix}{queue}{PRIORITY_SEPARATOR}{step}" for step in range(1, PRIORITIES)]


def backlogs(client: Client, prefix: str, queues: Sequence[str]) -> dict[str, int]:
    """Messages that wait in each queue."""
    with client.pipeline(transaction=False) as pipe:
        for queue in queues:
            for key in queue_keys(prefix, queue):
                pipe.llen(key)
        lengths = pipe.execute()
    return {queue: sum(lengths[i * PRIORITIES : (i + 1) * PRIORITIES]) for i, queue in enumerate(queues)}
