"""How many messages wait in a queue, read from the broker."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from amqp.exceptions import NotFound
from celery import Celery

from mloc_tasks.configuration import PRIORITIES
from mloc_tasks.ledger.connection import Client

logger = logging.getLogger("mloc.submit")

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


def rabbitmq_backlogs(app: Celery, queues: Sequence[str]) -> dict[str, int]:
    """Messages that wait in each queue of RabbitMQ; empty where it does not answer, which the sending then reports."""
    lengths: dict[str, int] = {}
    with app.pool.acquire(block=True) as connection:  # the one that the messages are sent over
        try:
            channel = connection.channel()
            for queue in queues:
                try:
                    lengths[queue] = channel.queue_declare(queue, passive=True).message_count
                except NotFound:  # nothing was ever sent there; the channel is closed with it
                    lengths[queue] = 0
                    channel = connection.channel()
            channel.close()
        except (*connection.connection_errors, *connection.channel_errors) as error:
            logger.warning("the queues' lengths are unknown: %s", error)
            return {}
    return lengths
