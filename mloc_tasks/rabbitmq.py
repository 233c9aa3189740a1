"""RabbitMQ as the broker: quorum queues that neither give up on a message nor take it back from a long stage."""

from __future__ import annotations

import logging
from typing import Any

from celery.app.amqp import AMQP, Queues
from kombu.entity import Exchange, Queue

from mloc_tasks.settings import DAY_SEC

logger = logging.getLogger("mloc.worker")

EXCHANGE = "mloc"
# RabbitMQ 4 drops a message at its 20th delivery, and every death of a worker is one. The ledger bounds attempts.
DELIVERY_LIMIT = 2**31 - 1
CONSUMER_TIMEOUT_MS = 30 * DAY_SEC * 1000  # above the longest stage; RabbitMQ's own default is 30 minutes
CONSUMER_TIMEOUT_SINCE = (3, 12)  # the first version that lets a consumer say so
SHORTEST_DELAY_SEC = 1.0  # the broker's delays are whole seconds [kombu/transport/native_delayed_delivery.py]


def work_queue(name: str) -> Queue:
    """The declaration of a queue, the same for whoever sends and whoever consumes, or RabbitMQ refuses it."""
    return Queue(
        name,
        # Delayed messages come back through a topic exchange, whose keys have parts: a dot in a name would make "h100"
        # match what was meant for "gpu.h100".
        Exchange(EXCHANGE, type="topic"),
        routing_key=name.replace("%", "%25").replace(".", "%2E"),
        queue_arguments={"x-queue-type": "quorum", "x-delivery-limit": DELIVERY_LIMIT},
        consumer_arguments={"x-consumer-timeout": CONSUMER_TIMEOUT_MS},
    )


class WorkQueues(Queues):  # type: ignore[misc]  # celery ships no types
    """Celery's queues; those that nobody declared are `work_queue`s where the broker is RabbitMQ."""

    def new_missing(self, name: str) -> Queue:
        return work_queue(name) if self.create_missing_queue_type == "quorum" else super().new_missing(name)


class Messaging(AMQP):  # type: ignore[misc]  # celery ships no types
    """The messaging of MLOC's apps."""

    queues_cls = WorkQueues


def warn_of_limits(consumer: Any) -> None:
    """Say what this broker and this worker cannot do together, once at the worker's start."""
    properties = consumer.connection.connection.server_properties
    version = str(properties.get("version", ""))
    if properties.get("product") == "RabbitMQ" and _number(version) < CONSUMER_TIMEOUT_SINCE:
        logger.warning(
            "RabbitMQ %s takes back what is not acknowledged within its consumer_timeout, 30 minutes unless its "
            "configuration says otherwise, and closes the worker's channel then; before %s a worker cannot ask for "
            "more. Where stages take longer, write into rabbitmq.conf: consumer_timeout = %d",
            version,
            ".".join(map(str, CONSUMER_TIMEOUT_SINCE)),
            CONSUMER_TIMEOUT_MS,
        )
    queues = sorted(consumer.app.amqp.queues.consume_from)
    if len(queues) > 1:
        logger.warning(
            "RabbitMQ hands a worker messages of each of its queues (%s) apart: some wait here while other workers are "
            "free. One worker for each queue avoids that.",
            ", ".join(queues),
        )


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
