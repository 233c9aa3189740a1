"""What many tests share: a real Valkey, a worker on it, folders of their own."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from mloc_tasks.settings import reset_settings
from scheduler.embedded import LocalWorker, PrivateValkey

pytest_plugins = ["tests.s3_server"]

settings.register_profile("mloc", deadline=None)  # a busy machine is no mistake
settings.load_profile("mloc")

QUEUES = ("cpu", "inference", "sft", "dpo", "ppo", "grpo")


@pytest.fixture(scope="session")
def results_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where everything that tests run here puts its artifacts."""
    return tmp_path_factory.mktemp("results")


@pytest.fixture(scope="session")
def valkey(results_dir: Path) -> Iterator[str]:
    """A real Valkey for the session; the environment of this process and its children points to it. Gives its URL."""
    folder = Path(tempfile.mkdtemp(prefix="mloc-test-", dir="/tmp"))  # a socket's path must be short
    server = PrivateValkey(folder)
    server.start()
    before = {name: os.environ.get(name) for name in ("REDIS_URL", "RESULTS_DIR")}
    os.environ.update(REDIS_URL=server.url, RESULTS_DIR=str(results_dir))
    reset_settings()
    yield server.url
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.update({name: value})
    reset_settings()
    server.stop()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def worker(valkey: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalWorker]:
    """A worker with two children that serves every default queue, for the session."""
    process = LocalWorker(QUEUES, log=tmp_path_factory.mktemp("worker") / "worker.log", concurrency=2)
    process.start()
    yield process
    process.stop()
