"""What this worker has taken and not ended, seen from any thread."""

from __future__ import annotations

from typing import Any

from celery.worker import state


def reserved() -> list[Any]:
    """The requests that wait here or run."""
    return _all_of(state.reserved_requests)


def active() -> list[Any]:
    """The requests that run."""
    return _all_of(state.active_requests)


def _all_of(requests: Any) -> list[Any]:
    """Celery's set of weak references, copied in one step: other threads change it, and end an iteration by that."""
    return [request for each in requests.data.copy() if (request := each()) is not None]
