"""One life of a worker: from its start to its end. The next of the same name is another one."""

from __future__ import annotations

import os
import uuid
from typing import Any

from celery.signals import worker_init

VARIABLE = "MLOC_WORKER_LIFE"  # in the environment, which pool children inherit however they are started


def install_life() -> None:
    """Give every worker that starts in this process an id of its own, before it makes its pool."""
    worker_init.connect(_begin, weak=False)


def this_life() -> str:
    """The id of the worker's life that this process belongs to; empty outside of workers."""
    return os.environ.get(VARIABLE, "")


def _begin(**_: Any) -> None:
    os.environ[VARIABLE] = uuid.uuid4().hex
