"""How MLOC configures Celery, and the app that a client sends with."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from celery import Celery
from kombu.entity import Queue

from mloc_tasks.rabbitmq import Messaging, work_queue
from mloc_tasks.settings import DAY_SEC, Settings

PRIORITIES = 10  # a spec's priority: 0 (low) to 9
# Above the longest stage: a chord whose parts expire between two results hangs for good.
CHORD_EXPIRES_SEC = 30 * DAY_SEC
DEFAULT_QUEUE = "cpu"
RESTORE_INTERVAL_SEC = 2.0
RESTORE_MUTEX_SEC = 10


def broker_priority(priority: int, *, amqp: bool = False) -> int:
    """A spec's priority as the broker wants it: Redis takes 0 first; RabbitMQ 4 takes 5-9 before 0-4, 3 knows none."""
    return priority if amqp else PRIORITIES - 1 - priority


def is_amqp(app: Celery) -> bool:
    """Whether the app's broker is RabbitMQ."""
    return bool(app.conf.task_default_queue_type == "quorum")


def celery_settings(settings: Settings) -> dict[str, Any]:
    """Celery's configuration; each line that is not a default says why in `docs/` of Celery or beside it."""
    backend = "SentinelCanvasBackend" if settings.redis.sentinels else "CanvasBackend"
    conf: dict[str, Any] = {
        # Celery reads "class+url"; of redis+socket:///path its url is socket:///path.
        "result_backend": f"mloc_tasks.backend:{backend}+{settings.celery_url.removeprefix('redis+')}",
        "result_backend_transport_options": {
            "global_keyprefix": settings.prefix,
            "visibility_timeout": settings.visibility_timeout_sec,
            **settings.redis.transport_options,
        },
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        # JSON only: no code travels in messages.
        "task_serializer": "json",
        "result_serializer": "json",
        "accept_content": ["json"],
        # A message is acknowledged when its shard is over, and a worker takes no more than it can run.
        "task_acks_late": True,
        "worker_prefetch_multiplier": 1,
        "task_retry_on_worker_lost": True,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "result_chord_expires": CHORD_EXPIRES_SEC,
        "task_default_queue": DEFAULT_QUEUE,
        "task_create_missing_queues": True,
        # What Flower shows.
        "worker_send_task_events": True,
        "task_send_sent_event": True,
        "worker_hijack_root_logger": True,
        "worker_redirect_stdouts": False,
        "worker_proc_alive_timeout": 30,
    }
    if settings.queues_from_topics:
        conf["task_default_queue"] = settings.queues_from_topics[0]
    return conf | (_rabbitmq(settings) if settings.amqp else _redis(settings))


def _redis(settings: Settings) -> dict[str, Any]:
    transport: dict[str, Any] = {
        "global_keyprefix": settings.prefix,
        # Short, because each worker renews what it holds (worker/visibility.py); looked at often; and not held up by a
        # worker that died while it looked: its lock ends before its messages may come back. Where a lock ends under a
        # worker that still looks, nothing is lost: each message is given back in one transaction.
        "visibility_timeout": settings.visibility_timeout_sec,
        "unacked_restore_interval": min(RESTORE_INTERVAL_SEC, settings.visibility_timeout_sec / 4),
        "unacked_restore_throttle": 1,
        "unacked_mutex_expire": min(RESTORE_MUTEX_SEC, settings.visibility_timeout_sec),
        "queue_order_strategy": "priority",
        "priority_steps": list(range(PRIORITIES)),
        "socket_connect_timeout": 5,
        "socket_keepalive": True,
        **settings.redis.transport_options,
    }
    conf: dict[str, Any] = {
        "broker_url": settings.celery_url,
        "broker_transport_options": transport,
        "worker_disable_prefetch": True,
    }
    if settings.queues_from_topics:
        conf["task_queues"] = [Queue(name) for name in settings.queues_from_topics]
    return conf


def _rabbitmq(settings: Settings) -> dict[str, Any]:
    return {
        "broker_url": settings.broker_url,
        # A message counts as sent when the broker has it on disk.
        "broker_transport_options": {"confirm_publish": True},
        # The broker notices at the second missed beat: a machine that vanished is given up within the timeout.
        "broker_heartbeat": max(1, int(settings.visibility_timeout_sec / 2)),
        # Also when the broker closes a channel, as it does at its consumer_timeout: the worker would end.
        "broker_channel_error_retry": True,
        "task_queues": [work_queue(name) for name in settings.queues_from_topics or (DEFAULT_QUEUE,)],
        "task_default_queue_type": "quorum",
        "task_create_missing_queue_type": "quorum",
        # Exclusive ones would keep a worker out that comes back before the broker has given its old connection up, and
        # RabbitMQ 4.3 refuses the third kind.
        "control_queue_exclusive": False,
        "control_queue_durable": True,
        "event_queue_exclusive": False,
        "event_queue_durable": True,
    }


def sending_app(settings: Settings) -> Celery:
    """An app that sends to the settings' broker and knows no tasks of its own. Made once for each broker."""
    return _sending_app(settings.redis_url, settings.broker_url, settings.prefix, settings.visibility_timeout_sec)


@lru_cache(maxsize=4)
def _sending_app(url: str, broker_url: str, prefix: str, visibility_timeout_sec: float) -> Celery:
    client = Celery("mloc-client", set_as_current=False, amqp=Messaging)
    settings = Settings(
        redis_url=url, broker_url=broker_url, prefix=prefix, visibility_timeout_sec=visibility_timeout_sec
    )
    client.conf.update(celery_settings(settings))
    return client
