"""A stop that ends: SIGTERM lets running shards finish for a while, then hands them back at once."""

from __future__ import annotations

import itertools
import logging
import os
import signal
import threading
from typing import Any

from billiard import pool
from celery.signals import worker_shutting_down

from mloc_tasks.settings import get_settings
from mloc_tasks.worker.request import give_claim_up
from mloc_tasks.worker.taken import active

logger = logging.getLogger("mloc.worker")

# Looks, 0.1 s apart, of a pool child that ends for the main process to have taken its last result. billiard's are 300,
# but the loop that takes results has often ended before. The message then comes again and finds its shard over.
LAST_LOOKS = 10

# Redis answers a worker's last request for a message up to a second after the worker has stopped asking [kombu's
# brpop_timeout]: what is handed back before that comes back here, and waits for the pool's end.
LAST_REQUEST_SEC = 1.0

_asked = itertools.count()


def install_shutdown() -> None:
    """Bound Celery's warm shutdown, which waits for running tasks without end."""
    worker_shutting_down.connect(_on_shutdown, weak=False)
    pool.GUARANTEE_MESSAGE_CONSUMPTION_RETRY_LIMIT = LAST_LOOKS


def _on_shutdown(how: str, **_: Any) -> None:
    if how != "Warm":
        return
    again = next(_asked) > 0  # one step, because a second signal may come in the middle of the first one's handler
    # Not in this handler, which may have interrupted the very client that is needed.
    settings = get_settings()
    soonest = 0.0 if settings.amqp else LAST_REQUEST_SEC
    timer = threading.Timer(max(soonest, 0.0 if again else settings.shutdown_grace_sec), _hand_back)
    timer.daemon = True
    timer.start()


def _hand_back() -> None:
    """Give up the claims of what runs, so that others may take it at once; then Celery's cold shutdown, which cancels
    running tasks and puts their messages back."""
    logger.warning("running shards are handed back now")
    for request in active():
        give_claim_up(request)
    os.kill(os.getpid(), signal.SIGQUIT)
