"""Which workers live: each keeps one key in Redis that expires when its signs of life stop."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from mloc_tasks.ledger.connection import Client
from mloc_tasks.ledger.keys import Keys


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerInfo:
    """A live worker. Memory in bytes, times in seconds since the epoch."""

    id: str
    host: str
    pid: int
    queues: tuple[str, ...]
    concurrency: int
    pool: str
    cpu: float | None
    memory: int | None
    gpus: str
    tags: tuple[str, ...]
    versions: dict[str, str]
    started: float
    last_seen: float


def register(client: Client, keys: Keys, worker: WorkerInfo, *, ttl_sec: float) -> None:
    """Show that the worker lives, for the next `ttl_sec` seconds."""
    with client.pipeline(transaction=False) as pipe:
        pipe.set(keys.worker(worker.id), json.dumps(asdict(worker)), px=int(ttl_sec * 1000))
        pipe.sadd(keys.workers, worker.id)
        pipe.execute()


def unregister(client: Client, keys: Keys, worker_id: str) -> None:
    """Forget a worker that shuts down."""
    with client.pipeline(transaction=False) as pipe:
        pipe.delete(keys.worker(worker_id))
        pipe.srem(keys.workers, worker_id)
        pipe.execute()


def live_workers(client: Client, keys: Keys) -> list[WorkerInfo]:
    """The workers that live, by id."""
    ids = sorted(client.smembers(keys.workers))
    if not ids:
        return []
    texts = client.mget([keys.worker(worker_id) for worker_id in ids])
    return [_parse(text) for text in texts if text]


def consumers(workers: Iterable[WorkerInfo]) -> dict[str, int]:
    """For each queue, how many shards can run at once on the live workers that serve it."""
    counts: dict[str, int] = {}
    for worker in workers:
        for queue in worker.queues:
            counts[queue] = counts.get(queue, 0) + worker.concurrency
    return counts


def _parse(text: str) -> WorkerInfo:
    body = json.loads(text)
    return WorkerInfo(**{**body, "queues": tuple(body["queues"]), "tags": tuple(body["tags"])})
