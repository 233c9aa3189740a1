"""What makes a Celery worker an MLOC worker: boot steps, its registration, the hardware it has."""

from __future__ import annotations

import logging
import os
import sys
from typing import Any

from celery import Celery
from celery.signals import after_setup_logger, worker_init

CELERYS_DEFAULT_LEVEL = logging.WARNING


def install(app: Celery) -> None:
    """Add MLOC's steps to the workers of `app`."""
    from mloc_tasks.worker.backpressure import Backpressure
    from mloc_tasks.worker.events import EventBatches
    from mloc_tasks.worker.life import install_life
    from mloc_tasks.worker.registration import Registration
    from mloc_tasks.worker.shutdown import install_shutdown
    from mloc_tasks.worker.sweeper import Sweeper
    from mloc_tasks.worker.visibility import VisibilityHeartbeat
    from mloc_tasks.worker.warden import Warden

    app.steps["consumer"].update((Backpressure, EventBatches, Registration, Sweeper, VisibilityHeartbeat, Warden))
    install_life()
    install_shutdown()
    worker_init.connect(_say_pool_size, weak=False)
    after_setup_logger.connect(_use_log_level, weak=False)


def _say_pool_size(sender: Any, **_: Any) -> None:
    """Each pool child then knows which share of the machine is its own."""
    from mloc_tasks.host.devices import POOL_SIZE

    os.environ[POOL_SIZE] = str(sender.concurrency or 1)


def _use_log_level(logger: logging.Logger, loglevel: int, **_: Any) -> None:
    """LOG_LEVEL holds where the command line names no level."""
    from mloc_tasks.settings import get_settings

    named = any(word.startswith(("-l", "--loglevel")) for word in sys.argv)
    if loglevel == CELERYS_DEFAULT_LEVEL and not named:
        logger.setLevel(get_settings().log_level)
