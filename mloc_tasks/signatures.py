"""The messages of a run: immutable Celery signatures that carry ids only, and how they read in Flower."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from celery import Celery, Signature, chord

from mloc_tasks.configuration import broker_priority, is_amqp

SHARD = "mloc.shard"
SCATTER = "mloc.scatter"
GATHER = "mloc.gather"
JOIN = "mloc.join"
FINISH = "mloc.finish"

LIGHT = "mloc_light"  # header of a shard that passes those which wait for a host; see redis_delivery.py

FIRST = 9  # priority of what ends a stage or a run: it is short, and others wait for it


def shard_name(task: str, args: Sequence[Any]) -> tuple[str, str, str] | None:
    """The (run, stage, shard) that a message is about; None for one that makes no attempt."""
    if task == SHARD:
        return args[0], args[1], str(args[2])
    return (args[0], args[1], task.removeprefix("mloc.")) if task in (SCATTER, GATHER) else None


def _signature(app: Celery, name: str, args: tuple[Any, ...], *, queue: str, priority: int, shown: str) -> Signature:
    return app.signature(
        name,
        args=args,
        immutable=True,
        options={"queue": queue, "priority": broker_priority(priority, amqp=is_amqp(app)), "argsrepr": shown},
    )


def shard(
    app: Celery, run_id: str, stage: str, number: int, *, of: int, queue: str, priority: int, light: bool = False
) -> Signature:
    """One shard of a stage; an unsharded stage is shard 0 of 1. A light one needs no host."""
    shown = f"{run_id}/{stage}[{number}/{of}]"
    signature = _signature(app, SHARD, (run_id, stage, number), queue=queue, priority=priority, shown=shown)
    return signature.set(headers={LIGHT: True}) if light else signature


def scatter(app: Celery, run_id: str, stage: str, *, queue: str, priority: int) -> Signature:
    """A sharded stage before its input is counted: it replaces itself by its shards and their gather."""
    return _signature(app, SCATTER, (run_id, stage), queue=queue, priority=priority, shown=f"{run_id}/{stage}")


def shards_and_gather(
    app: Celery,
    run_id: str,
    stage: str,
    *,
    numbers: Sequence[int],
    of: int,
    queue: str,
    priority: int,
    light: bool = False,
) -> Signature:
    """What a scatter becomes: the shards `numbers` of all `of`, then the gather that merges all."""
    parts = [
        shard(app, run_id, stage, number, of=of, queue=queue, priority=priority, light=light) for number in numbers
    ]
    shown = f"{run_id}/{stage}[{of}]"
    gather = _signature(app, GATHER, (run_id, stage), queue=queue, priority=FIRST, shown=shown)
    return chord(parts, gather, app=app) if parts else gather


def join(app: Celery, run_id: str, *, queue: str) -> Signature:
    """Where parallel branches meet and no single stage follows."""
    return _signature(app, JOIN, (run_id,), queue=queue, priority=FIRST, shown=run_id)


def finish(app: Celery, run_id: str, *, queue: str) -> Signature:
    """The end of every run."""
    return _signature(app, FINISH, (run_id,), queue=queue, priority=FIRST, shown=run_id)
