"""Which workers hold which models, so that a shard goes to one that need not load its model first.

A worker that takes a shard whose model it would have to load, while another live one holds it, puts the message back
at the head of its queue: among those that wait for messages the broker serves who waits longest, and that is not the
one who has just taken one. It does so for `MLOC_WARM_WAIT_SEC` at most, counted for each message over all workers; a
shard whose model only busy workers hold is then taken all the same, and there is one more worker that holds it.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Mapping
from typing import Any

from mloc_tasks.executors.registry import executor_class
from mloc_tasks.ledger.connection import Client
from mloc_tasks.ledger.keys import Keys

PAUSE_SEC = 0.05  # before the message goes back, so that two cold workers do not spin
HELD_FOR_SEC = 86_400  # at most; a worker's death is seen by its lease


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


def wait_for_warm(client: Client, keys: Keys, *, worker: str, key: str, task_id: str, most_sec: float) -> bool:
    """Whether a cold worker should put the message back for a live one that holds the model."""
    holders = client.smembers(keys.warm(key))
    if not _alive(client, keys, (holder for holder in holders if holder != worker)) or worker in holders:
        return False
    now = time.time()
    first = client.set(keys.passed_on(task_id), now, nx=True, get=True, px=int(most_sec * 1000) + 60_000)
    return first is None or now - float(first) < most_sec


def _alive(client: Client, keys: Keys, workers: Iterable[str]) -> bool:
    leases = [keys.lease(worker) for worker in workers]
    return bool(leases) and bool(client.exists(*leases))
