"""What a client uses: `submit_yaml("spec.yaml")` returns a `Run`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scheduler.runs import Artifact, Run, RunFailedError, RunStatus
    from scheduler.submit import submit_yaml

__all__ = ["Artifact", "Run", "RunFailedError", "RunStatus", "submit_yaml"]

_HOMES = {
    "Artifact": "scheduler.runs",
    "Run": "scheduler.runs",
    "RunFailedError": "scheduler.runs",
    "RunStatus": "scheduler.runs",
    "submit_yaml": "scheduler.submit",
}


def __getattr__(name: str) -> Any:
    # Imported on use: `mloc validate` needs neither Celery nor Redis, and starts faster without them.
    if name in _HOMES:
        import importlib

        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
