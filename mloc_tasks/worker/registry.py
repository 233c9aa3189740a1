"""Which workers live: each keeps one key in Redis that expires when its signs of life stop."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from mloc_tasks.ledger.connection import Client
from mloc_tasks.ledger.keys import Keys


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerInfo:
    """A live worker. Memory in bytes, times in seconds since the epoch.

    `shards` are those that ran at its last sign of life, as `run/stage[shard]`; `models` what its processes hold.
    """

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
    shards: tuple[str, ...] = ()
    models: tuple[str, ...] = ()


def register(client: Client, keys: Keys, worker: WorkerInfo, *, ttl_sec: float) -> None:
    """Show that the worker lives, for the next `ttl_sec` seconds."""
    with client.pipeline(transaction=False) as pipe:
        pipe.set(keys.worker(worker.id), json.dumps(asdict(worker)), px=int(ttl_sec * 1000))
        pipe.sadd(keys.workers, worker.id)
        pipe.execute()


def note_model(client: Client, keys: Keys, worker_id: str, *, holder: str, model: str, ttl_sec: float) -> None:
    """Show that a process of the worker, named by `holder`, holds a model."""
    with client.pipeline(transaction=False) as pipe:
        pipe.hset(keys.models(worker_id), holder, model)
        pipe.pexpire(keys.models(worker_id), int(ttl_sec * 1000))
        pipe.execute()


def forget_models(client: Client, keys: Keys, worker_id: str, *, holder: str) -> None:
    """Show no more that a process holds a model: it has ended."""
    client.hdel(keys.models(worker_id), holder)


def unregister(client: Client, keys: Keys, worker_id: str) -> None:
    """Forget a worker that shuts down."""
    with client.pipeline(transaction=False) as pipe:
        pipe.delete(keys.worker(worker_id), keys.models(worker_id))
        pipe.srem(keys.workers, worker_id)
        pipe.execute()


def live_workers(client: Client, keys: Keys) -> list[WorkerInfo]:
    """The workers that live, by id."""
    return described(client, keys, sorted(client.smembers(keys.workers)))


def described(client: Client, keys: Keys, ids: Sequence[str]) -> list[WorkerInfo]:
    """Those of the workers that live."""
    if not ids:
        return []
    with client.pipeline(transaction=False) as pipe:
        for worker_id in ids:
            pipe.get(keys.worker(worker_id))
            pipe.hvals(keys.models(worker_id))
        answers = pipe.execute()
    pairs = zip(answers[::2], answers[1::2], strict=True)
    return [_parse(text, models) for text, models in pairs if text]


def clean_up(client: Client, keys: Keys) -> list[str]:
    """Forget the workers whose signs of life have stopped; gives their ids."""
    ids = sorted(client.smembers(keys.workers))
    gone = [worker_id for worker_id in ids if not client.exists(keys.worker(worker_id))]
    for worker_id in gone:
        unregister(client, keys, worker_id)
    return gone


def consumers(workers: Iterable[WorkerInfo]) -> dict[str, int]:
    """For each queue, how many shards can run at once on the live workers that serve it."""
    counts: dict[str, int] = {}
    for worker in workers:
        for queue in worker.queues:
            counts[queue] = counts.get(queue, 0) + worker.concurrency
    return counts


def _parse(text: str, models: list[str]) -> WorkerInfo:
    body = json.loads(text)
    lists = {name: tuple(body[name]) for name in ("queues", "tags", "shards")}
    return WorkerInfo(**{**body, **lists, "models": tuple(sorted(set(models)))})
