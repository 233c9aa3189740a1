"""Celery's Redis backend, less what the ledger does better: only chords use it."""

from __future__ import annotations

from typing import Any

from celery.backends.redis import RedisBackend, SentinelBackend
from redis.backoff import ExponentialWithJitterBackoff
from redis.retry import Retry

RETRIES = 30  # of a command, while Redis restarts
RETRY_SEC = (0.05, 1.0)  # between two tries: at first, and at most


class ChordsOnly:
    """Counts the parts of chords and stores no results: what a task returned is in the ledger.

    Celery's own would write and publish a key for every task, and subscribe the sender to it, which a gateway that
    submits for months would never undo.
    """

    connparams: dict[str, Any]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.connparams["retry"] = Retry(ExponentialWithJitterBackoff(base=RETRY_SEC[0], cap=RETRY_SEC[1]), RETRIES)

    def on_task_call(self, producer: Any, task_id: str) -> dict[str, Any]:
        return {}

    def add_pending_result(self, result: Any, *args: Any, **kwargs: Any) -> Any:
        return result

    def remove_pending_result(self, result: Any) -> Any:
        return result

    def store_result(self, task_id: str, result: Any, state: str, *args: Any, **kwargs: Any) -> Any:
        return result


class CanvasBackend(ChordsOnly, RedisBackend):  # type: ignore[misc]  # celery ships no types
    """At one server."""


class SentinelCanvasBackend(ChordsOnly, SentinelBackend):  # type: ignore[misc]  # celery ships no types
    """At the server that Sentinels name."""
