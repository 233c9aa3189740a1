"""Workers that may die: a short visibility timeout, a broker of their own, the executors that faults need."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from mloc_tasks.settings import reset_settings
from scheduler.embedded import LocalWorker, PrivateValkey

TIMEOUT_SEC = 3.0
PLUGINS = Path(__file__).parents[1] / "plugins"

StartWorker = Callable[..., LocalWorker]


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[PrivateValkey]:
    """A Valkey for one test, and the environment that leads to it."""
    folder = Path(tempfile.mkdtemp(prefix="mloc-test-", dir="/tmp"))
    server = PrivateValkey(folder)
    server.start()
    monkeypatch.setenv("REDIS_URL", server.url)
    monkeypatch.setenv("RESULTS_DIR", str(tmp_path / "results"))
    monkeypatch.setenv("MLOC_VISIBILITY_TIMEOUT_SEC", str(TIMEOUT_SEC))
    monkeypatch.setenv("HEARTBEAT_INTERVAL_SEC", "1")
    monkeypatch.setenv("HEARTBEAT_TTL_SEC", "4")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(PLUGINS), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.syspath_prepend(str(PLUGINS))
    reset_settings()
    yield server
    server.stop()
    shutil.rmtree(folder, ignore_errors=True)
    monkeypatch.undo()
    reset_settings()


@pytest.fixture
def start_worker(broker: PrivateValkey, tmp_path: Path) -> Iterator[StartWorker]:
    """Starts workers on queue `cpu` by name; all are ended with the test."""
    started: list[LocalWorker] = []

    def start(name: str, *, concurrency: int = 1, options: Sequence[str] = ()) -> LocalWorker:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        worker = LocalWorker(
            ("cpu",), log=folder / "worker.log", concurrency=concurrency, options=("-n", f"{name}@test", *options)
        )
        worker.start()
        started.append(worker)
        return worker

    yield start
    for worker in started:
        worker.stop(idle=True)


def document(spec: dict[str, Any]) -> dict[str, Any]:
    """A spec of one or more stages."""
    return {"apiVersion": "mloc/v1", "kind": "Workflow", "metadata": {"name": "faults"}, "spec": spec}


def rows(count: int) -> dict[str, Any]:
    """Inline data of `count` rows."""
    return {"type": "list", "items": [f"row {number}" for number in range(count)]}
