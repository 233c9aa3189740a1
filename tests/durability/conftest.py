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
from tests.durability import rabbitmq_node
from tests.durability.cpu_queue import CpuQueue, RabbitCpuQueue, RedisCpuQueue
from tests.durability.rabbitmq_node import RabbitNode

TIMEOUT_SEC = 3.0
PLUGINS = Path(__file__).parents[1] / "plugins"

StartWorker = Callable[..., LocalWorker]

ON_BOTH_BROKERS = pytest.mark.parametrize("broker_url", ["redis", "rabbitmq"], indirect=True)
ON_RABBITMQ = pytest.mark.parametrize("broker_url", ["rabbitmq"], indirect=True)


@pytest.fixture(scope="session")
def rabbitmq() -> Iterator[RabbitNode]:
    """A RabbitMQ for the session."""
    with rabbitmq_node.running() as node:
        yield node


@pytest.fixture
def broker_url(request: pytest.FixtureRequest) -> str:
    """MLOC_BROKER_URL of the test: empty where Redis is the broker."""
    if getattr(request, "param", "redis") == "redis":
        return ""
    node: RabbitNode = request.getfixturevalue("rabbitmq")
    node.forget_messages("cpu")
    return node.url


@pytest.fixture
def cpu_queue(request: pytest.FixtureRequest, broker_url: str, broker: PrivateValkey) -> CpuQueue:
    """Queue `cpu` of the test's broker."""
    return RabbitCpuQueue(request.getfixturevalue("rabbitmq")) if broker_url else RedisCpuQueue()


@pytest.fixture
def broker(broker_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[PrivateValkey]:
    """A Valkey for one test, and the environment that leads to it, and to RabbitMQ where that is the broker."""
    folder = Path(tempfile.mkdtemp(prefix="mloc-test-", dir="/tmp"))
    server = PrivateValkey(folder, options=("--appendonly", "yes"))
    server.start()
    monkeypatch.setenv("REDIS_URL", server.url)
    monkeypatch.setenv("MLOC_BROKER_URL", broker_url)
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
def patient(broker: PrivateValkey, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers of which none is taken for dead because the machine is busy."""
    monkeypatch.setenv("MLOC_VISIBILITY_TIMEOUT_SEC", "60")
    monkeypatch.setenv("HEARTBEAT_TTL_SEC", "60")
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
