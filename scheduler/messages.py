"""Which messages of which runs wait in the broker, read from it without disturbing it."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from celery import Celery

from mloc_tasks import signatures
from mloc_tasks.ledger.connection import Client
from mloc_tasks.ledger.keys import Keys
from scheduler.backlog import queue_keys

OWN_TASKS = "mloc."
CHUNK = 500  # messages fetched at once; one has one or two kilobytes


@dataclass(slots=True)
class RunMessages:
    """The messages of one run: the (stage, shard) that they are about, and the number of joins and finishes."""

    shards: set[tuple[str, str]] = field(default_factory=set)
    others: int = 0

    def __bool__(self) -> bool:
        return bool(self.shards or self.others)


def can_look_into(app: Celery) -> bool:
    """Whether the broker is a Redis, whose queues can be read; an AMQP broker shows nobody what waits in it."""
    return bool(app.connection_for_write().transport.driver_type == "redis")


def find_messages(client: Client, keys: Keys, queues: Iterable[str], runs: Iterable[str]) -> dict[str, RunMessages]:
    """The messages of `runs` that wait in `queues`, or that a worker holds, by run.

    Queues first, held ones last, each queue from the end that messages are put in at: so none is missed that moves
    while this reads, on its way to the other end of the queue or to a worker.
    """
    found = {run_id: RunMessages() for run_id in runs}
    for queue in queues:
        for key in queue_keys(keys.prefix, queue):
            for text in _waiting(client, key):
                _note(found, text)
    for _, text in client.hscan_iter(keys.unacked, count=CHUNK):
        _note(found, json.loads(text)[0])
    return found


def _waiting(client: Client, key: str) -> Iterator[str]:
    first = 0
    while page := client.lrange(key, first, first + CHUNK - 1):
        yield from page
        first += CHUNK


def _note(found: dict[str, RunMessages], message: str | dict[str, Any]) -> None:
    document = json.loads(message) if isinstance(message, str) else message
    task = str((document.get("headers") or {}).get("task", ""))
    if not task.startswith(OWN_TASKS):
        return
    args = json.loads(base64.b64decode(document["body"]))[0]
    messages = found.get(args[0])
    if messages is None:
        return
    if task in (signatures.JOIN, signatures.FINISH):
        messages.others += 1
        return
    name = signatures.shard_name(task, args)
    if name is not None:
        messages.shards.add(name[1:])
