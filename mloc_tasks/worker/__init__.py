"""What makes a Celery worker an MLOC worker: boot steps, its registration, the hardware it has."""

from __future__ import annotations

from celery import Celery


def install(app: Celery) -> None:
    """Add MLOC's steps to the workers of `app`."""
    from mloc_tasks.worker.registration import Registration

    app.steps["consumer"].add(Registration)
