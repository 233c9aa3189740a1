"""What the worker's main process knows of a shard's message: how it ends, also when its pool child does not."""

from __future__ import annotations

import logging
import threading
from functools import lru_cache
from typing import Any

import redis
from billiard.exceptions import WorkerLostError
from celery.exceptions import Reject
from celery.worker.request import Request
from kombu.exceptions import BatchPublishError, OperationalError

from mloc_tasks.errors import BrokerError
from mloc_tasks.ledger import Ledger
from mloc_tasks.ledger.connection import connect
from mloc_tasks.settings import get_settings
from mloc_tasks.signatures import shard_name
from mloc_tasks.worker.sweeper import sweep_soon

logger = logging.getLogger("mloc.worker")

FAILED_RESULT = "{'failed': "
BROKER_ERRORS = (
    OperationalError,
    BatchPublishError,
    redis.exceptions.ConnectionError,
    redis.exceptions.TimeoutError,
    ConnectionError,
)


class RunRequest(Request):  # type: ignore[misc]  # celery ships no types
    """The request of a task of a run."""

    def cancel(self, pool: Any, signal: Any = None, emit_retry: bool = True) -> None:
        """End it because the worker stops; its message goes to the others at once.

        Celery would give it back with its connection, after it has waited for the pool: half a second for each child.
        """
        super().cancel(pool, signal, emit_retry=emit_retry)
        self.reject(requeue=True)

    def on_failure(self, exc_info: Any, *args: Any, **kwargs: Any) -> Any:
        """What could not be passed on comes again, and the claim that a pool child died with is given up.

        A shard's own failure is an outcome and never gets here.
        """
        error = getattr(exc_info.exception, "exc", exc_info.exception)
        if isinstance(error, WorkerLostError) and not self.acknowledged:  # else somebody else may have it by now
            give_claim_up(self)
            sweep_soon()
        elif isinstance(error, BROKER_ERRORS):
            logger.warning("%s: its message goes back, because what follows it could not be sent: %s", self.id, error)
            exc_info.exception = Reject(error, requeue=True)
        return super().on_failure(exc_info, *args, **kwargs)

    def send_event(self, type: str, **fields: Any) -> None:
        """A task that returned `{"failed": why}` is a failed task in Flower, though the canvas goes on.

        What follows it decides in the ledger whether it is skipped.
        """
        result = fields.get("result")
        if type == "task-succeeded" and isinstance(result, str) and result.startswith(FAILED_RESULT):
            why = result.removeprefix(FAILED_RESULT).removesuffix("}").strip("'\"")
            super().send_event("task-failed", exception=why, traceback="")
        else:
            super().send_event(type, **fields)


def give_claim_up(request: Request) -> None:
    """Free the claim of a process that died or is about to be ended, so that whoever gets the message may take it."""
    name = shard_name(request.name, request.args)
    if name is not None:
        _abandon(*name, task_id=request.id, worker=get_settings().worker_name(request.hostname))


def _abandon(*name: str, task_id: str, worker: str) -> None:
    try:
        _ledger().abandon(*name, task_id=task_id, worker=worker)
    except BrokerError as error:
        logger.warning("%s: the claim of a lost process is given up later: %s", "/".join(name), error)
        # Not here: the worker's event loop must go on.
        later = Ledger(connect(get_settings(), patient=True), get_settings())
        options = {"task_id": task_id, "worker": worker}
        threading.Thread(target=later.abandon, args=name, kwargs=options, name="mloc-abandon", daemon=True).start()


@lru_cache(maxsize=1)
def _ledger() -> Ledger:
    return Ledger.connect()
