"""What an MLOC worker runs: `celery -A mloc_tasks worker -Q inference`."""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # `celery -A mloc_tasks` looks for an attribute `celery`; importing it lazily keeps `import mloc_tasks` light.
    if name == "celery":
        from mloc_tasks.app import app

        return app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
