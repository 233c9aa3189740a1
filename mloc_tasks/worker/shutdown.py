"""A stop that ends: SIGTERM lets running shards finish for a while, then hands them back at once."""

from __future__ import annotations

import logging
import os
import signal
import threading
from typing import Any

from billiard import pool
from celery.signals import worker_shutting_down

from mloc_tasks.settings import get_settings

logger = logging.getLogger("mloc.worker")

# Looks, 0.1 s apart, of a pool child that ends for the main process to have taken its last result. billiard's are 300,
# but the loop that takes results has often ended before. The message then comes again and finds its shard over.
LAST_LOOKS = 10

_asked = threading.Event()


def install_shutdown() -> None:
    """Bound Celery's warm shutdown, which waits for running tasks without end."""
    worker_shutting_down.connect(_on_shutdown, weak=False)
    pool.GUARANTEE_MESSAGE_CONSUMPTION_RETRY_LIMIT = LAST_LOOKS


def _on_shutdown(how: str, **_: Any) -> None:
    if how != "Warm":
        return
    if _asked.is_set():
        logger.warning("asked to stop again: running shards are handed back now")
        _hand_back()
        return
    _asked.set()
    timer = threading.Timer(get_settings().shutdown_grace_sec, _hand_back)
    timer.daemon = True
    timer.start()


def _hand_back() -> None:
    """Celery's cold shutdown: running tasks are cancelled and their messages go back to the queue."""
    os.kill(os.getpid(), signal.SIGQUIT)
