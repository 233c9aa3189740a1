"""A worker's signs of life, as a step of Celery's consumer."""

from __future__ import annotations

import logging
import os
import platform
import socket
import threading
import time
from dataclasses import replace
from typing import Any

import redis
from celery import bootsteps

from mloc_tasks import __version__
from mloc_tasks.capabilities import Capabilities, Requirement, shortfalls
from mloc_tasks.errors import ConfigError
from mloc_tasks.ledger.connection import connect
from mloc_tasks.ledger.keys import Keys
from mloc_tasks.queues import Queue, load_queues
from mloc_tasks.settings import Settings, get_settings
from mloc_tasks.signatures import shard_name
from mloc_tasks.worker.hardware import machine_capabilities
from mloc_tasks.worker.registry import WorkerInfo, register, unregister
from mloc_tasks.worker.taken import active

logger = logging.getLogger("mloc.worker")


class Registration(bootsteps.StartStopStep):  # type: ignore[misc]  # celery ships no types
    """Registers the worker, repeats it every `HEARTBEAT_INTERVAL_SEC`, and unregisters on a clean shutdown.

    A thread does it, so that neither a busy event loop nor the kind of pool can silence the heartbeat.
    """

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **options: Any) -> None:
        super().__init__(consumer, **options)
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._info: WorkerInfo | None = None

    def start(self, consumer: Any) -> None:
        settings = get_settings()
        if self._info is None:
            self._info = describe_worker(consumer, settings)
            warn_of_queues(self._info.queues, settings)
        self._stopping = threading.Event()  # a new one: an old thread that a stalled Redis holds must still end
        arguments = (settings, self._stopping)
        self._thread = threading.Thread(target=self._beat, args=arguments, name="mloc-heartbeat", daemon=True)
        self._thread.start()

    def stop(self, consumer: Any) -> None:
        if self._thread is not None:
            self._stopping.set()
            self._thread.join(timeout=5)
            self._thread = None

    shutdown = stop

    def _beat(self, settings: Settings, stopping: threading.Event) -> None:
        assert self._info is not None
        keys = Keys(settings.prefix)
        with connect(settings) as client:
            while True:
                try:
                    now = replace(self._info, last_seen=time.time(), shards=running_shards())
                    register(client, keys, now, ttl_sec=settings.heartbeat_ttl_sec)
                except redis.exceptions.RedisError as error:
                    logger.warning("sign of life not sent, next try in %gs: %s", settings.heartbeat_interval_sec, error)
                if stopping.wait(settings.heartbeat_interval_sec):
                    break
            try:
                unregister(client, keys, self._info.id)
            except redis.exceptions.RedisError as error:
                logger.warning("not unregistered, the entry expires by itself: %s", error)


def running_shards() -> tuple[str, ...]:
    """What the pool works on, as `run/stage[shard]`."""
    names = (shard_name(request.name, request.args) for request in active())
    return tuple(sorted(f"{name[0]}/{name[1]}[{name[2]}]" for name in names if name))


def describe_worker(consumer: Any, settings: Settings) -> WorkerInfo:
    """The worker that `consumer` belongs to."""
    machine = machine_capabilities(settings.worker_tags)
    pool = consumer.pool
    return WorkerInfo(
        id=settings.worker_name(consumer.hostname),
        host=socket.gethostname(),
        pid=os.getpid(),
        queues=tuple(sorted(consumer.app.amqp.queues.consume_from)),
        concurrency=int(getattr(pool, "num_processes", None) or getattr(pool, "limit", None) or 1),
        pool=type(pool).__module__.rsplit(".", 1)[-1],
        cpu=machine.cpu,
        memory=machine.memory,
        gpus=str(machine.gpus) if machine.gpus else "",
        tags=tuple(sorted(machine.tags)),
        versions={"mloc": __version__, "python": platform.python_version()},
        started=time.time(),
        last_seen=time.time(),
    )


def warn_of_queues(queues: tuple[str, ...], settings: Settings) -> None:
    """Say loudly where a queue is not declared, or promises more than this machine has."""
    try:
        declared = {queue.name: queue for queue in load_queues(settings.queues_file)}
    except ConfigError as error:
        logger.error("%s", error)
        return
    machine = machine_capabilities(settings.worker_tags)
    for name in queues:
        queue = declared.get(name)
        if queue is None:
            logger.warning(
                "queue %r is not declared in the queues file: no stage is ever sent to it. Declared: %s",
                name,
                ", ".join(sorted(declared)),
            )
            continue
        lacking = queue_shortfalls(queue, machine)
        if lacking:
            rest = (
                "MLOC_ALLOW_UNFIT=1: its stages run here all the same"
                if settings.allow_unfit
                else "stages that need it are handed back to the queue; MLOC_ALLOW_UNFIT=1 runs them all the same"
            )
            logger.warning("this machine falls short of queue %r: %s. %s", name, "; ".join(lacking), rest)


def queue_shortfalls(queue: Queue, machine: Capabilities) -> tuple[str, ...]:
    """What a queue promises and the machine does not have."""
    promised = queue.offers
    need = Requirement(task_type="", cpu=promised.cpu, memory=promised.memory, gpus=promised.gpus, tags=promised.tags)
    return shortfalls(need, machine)
