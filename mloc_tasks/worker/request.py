"""What the worker's main process knows of a shard's message: how it ends, also when its pool child does not."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from billiard.exceptions import WorkerLostError
from celery.worker.request import Request

from mloc_tasks.ledger import Ledger
from mloc_tasks.settings import get_settings
from mloc_tasks.signatures import shard_name

FAILED_RESULT = "{'failed': "


class RunRequest(Request):  # type: ignore[misc]  # celery ships no types
    """The request of a task that makes attempts."""

    def on_failure(self, exc_info: Any, *args: Any, **kwargs: Any) -> Any:
        """A claim that a pool child died with is given up, so that whoever gets the message again may take it."""
        error = getattr(exc_info.exception, "exc", exc_info.exception)
        name = shard_name(self.name, self.args)
        if isinstance(error, WorkerLostError) and name is not None:
            run_id, stage, shard = name
            worker = get_settings().worker_name(self.hostname)
            _ledger().abandon(run_id, stage, shard, task_id=self.id, worker=worker)
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


@lru_cache(maxsize=1)
def _ledger() -> Ledger:
    return Ledger.connect()
