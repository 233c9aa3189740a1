"""What waits in queue `cpu` of a test's broker, and how an operator's slip makes away with it."""

from __future__ import annotations

from abc import ABC, abstractmethod

from mloc_tasks.ledger import Ledger
from scheduler.backlog import backlogs, queue_keys
from tests.durability.rabbitmq_node import RabbitNode

NAME = "cpu"


class CpuQueue(ABC):
    """The messages that wait there; those that a worker holds are not among them."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def flush(self) -> int:
        """Delete what waits; says how many messages that were."""


class RedisCpuQueue(CpuQueue):
    """Lists in the Redis of the environment."""

    def __len__(self) -> int:
        ledger = Ledger.connect()
        return backlogs(ledger.client, ledger.keys.prefix, [NAME])[NAME]

    def flush(self) -> int:
        ledger, count = Ledger.connect(), len(self)
        ledger.client.delete(*queue_keys(ledger.keys.prefix, NAME))
        return count


class RabbitCpuQueue(CpuQueue):
    """A quorum queue; there are none before the first message."""

    def __init__(self, node: RabbitNode) -> None:
        self._node = node

    def __len__(self) -> int:
        with self._node.connect() as connection:
            return int(connection.channel().queue_declare(NAME, passive=True).message_count)

    def flush(self) -> int:
        return self._node.purge(NAME)
