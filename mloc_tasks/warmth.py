"""Which workers hold which models, so that a shard goes to one that need not load its model first.

A stage's queue is chosen when its run is submitted; where several fit it equally and wait equally, it is one whose
workers hold the model then (`scheduler.routing`). The rest is decided when a worker takes a shard.

A worker that takes a shard whose model it would have to load, while another live one that serves its queue holds it,
leaves it to that one: it gives the message back, to the head of its queue, and for a moment passes over it itself (see
`mloc_tasks.redis_delivery`). So whoever holds the model gets it next, and nothing that waits behind it waits for it.

How long and how much a worker leaves to others is bounded, or it would stand idle beside a backlog:

- A shard is left for `MLOC_WARM_WAIT_SEC` in all, counted from the first time and over all workers. Then whoever comes
  next takes it, and there is one more worker that holds the model.
- No more shards of a model are left at a time than the holders could run at once. Where more wait, they are busy.

RabbitMQ decides itself who gets a message that was given back, and may choose the same worker again; there each waits a
moment before it gives one back.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from typing import Any

from mloc_tasks.executors.registry import executor_class
from mloc_tasks.ledger.connection import Client
from mloc_tasks.ledger.keys import Keys
from mloc_tasks.worker.registry import described

PAUSE_SEC = 0.05  # before a message goes back to RabbitMQ, so that two cold workers do not spin
HELD_FOR_SEC = 86_400  # at most; a worker's death is seen by its lease
LEFT_FOR_SEC = 7 * 86_400  # what was left and is not taken by then begins anew


def warm_key(document: Mapping[str, Any]) -> str | None:
    """What stages have in common that can use the same loaded model, or None when nothing of this one stays loaded.

    `document` is the stage's, and may have references in it.
    """
    try:
        executor = executor_class(document["task_type"], document)
        if not (executor.keeps_model and executor.reusable):
            return None
        key = executor.host_key(document)
    except Exception:  # a plugin's too: nothing is claimed yet that could record it, and the attempt will say why
        return None
    text = f"{executor.__module__}:{executor.__qualname__}:{key}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def publish(client: Client, keys: Keys, worker: str, key: str) -> None:
    """Say that a host of the worker holds the model."""
    with client.pipeline(transaction=False) as pipe:
        pipe.sadd(keys.warm(key), worker)
        pipe.expire(keys.warm(key), HELD_FOR_SEC)
        pipe.execute()


def withdraw(client: Client, keys: Keys, worker: str, key: str) -> None:
    """Say that none does any more."""
    client.srem(keys.warm(key), worker)


def holders_of(client: Client, keys: Keys, models: Collection[str]) -> dict[str, set[str]]:
    """For each model's key, the workers that hold it; some may have died."""
    with client.pipeline(transaction=False) as pipe:
        for key in models:
            pipe.smembers(keys.warm(key))
        return dict(zip(models, pipe.execute(), strict=True))


def leave(client: Client, keys: Keys, *, worker: str, key: str, queue: str, task_id: str, most_sec: float) -> bool:
    """Whether a worker should leave a message of the queue to others that hold its model; it is then noted as left."""
    holders = client.smembers(keys.warm(key))
    if worker in holders:
        return False
    room = _room(client, keys, sorted(holders), queue)
    if not room:
        return False
    seconds, microseconds = client.time()  # the workers' own clocks may differ
    now = seconds + microseconds / 1e6
    with client.pipeline() as pipe:
        pipe.zadd(keys.left(key), {task_id: now}, nx=True)
        pipe.zrange(keys.left(key), now - most_sec, "+inf", byscore=True)
        pipe.expire(keys.left(key), LEFT_FOR_SEC)
        _, left, _ = pipe.execute()
    return task_id in left[:room]


def take(client: Client, keys: Keys, key: str, task_id: str) -> None:
    """Say that the message is taken, and left to nobody any more."""
    client.zrem(keys.left(key), task_id)


def _room(client: Client, keys: Keys, workers: list[str], queue: str) -> int:
    """How many shards of the queue those of the workers that live could run at once."""
    if not workers:
        return 0
    with client.pipeline(transaction=False) as pipe:
        for worker in workers:
            pipe.exists(keys.lease(worker))
        alive = [worker for worker, lease in zip(workers, pipe.execute(), strict=True) if lease]
    return sum(worker.concurrency for worker in described(client, keys, alive) if queue in worker.queues)
