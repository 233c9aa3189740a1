"""The environment that a host starts in."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence

# What leads to the broker, the ledger and the store, of which executors know nothing. Models bring code of their own.
WORKERS_ALONE = frozenset(
    {
        *("REDIS_URL", "MLOC_BROKER_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"),
        *("AWS_SECURITY_TOKEN", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_AUTHORIZATION_TOKEN"),
    }
)
CELERYS = "CELERY_"


def environment(python: str, extra: Mapping[str, str], *, path: Sequence[str] | None = None) -> dict[str, str]:
    """A host's environment: this process's, less what is secret or the worker's alone, and what makes it find plugins.

    Under this process's own interpreter it sees the modules that this process sees, which are `path` (`sys.path`).
    Under any other one it finds the programs that are installed beside it.
    """
    kept = {
        name: value for name, value in os.environ.items() if name not in WORKERS_ALONE and not name.startswith(CELERYS)
    }
    if python == sys.executable:
        kept["PYTHONPATH"] = os.pathsep.join(entry or os.getcwd() for entry in path or sys.path)
    else:
        for name in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"):
            kept.pop(name, None)
    programs = os.path.dirname(python)
    if programs not in (found := kept.get("PATH", os.defpath).split(os.pathsep)):
        kept["PATH"] = os.pathsep.join([programs, *found])
    return {**kept, "PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1", **extra}
