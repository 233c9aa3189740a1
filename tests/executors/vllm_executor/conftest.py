"""The executor with its engine for a module's tests, and LoRA adapters for the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from vllm_runs import HIDDEN, Runs

from mloc_tasks.executors.vllm import VllmExecutor
from tests.plugins.mloc_test_adapter import write_adapter


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    """The executor with its engine, loaded by the first run of the module."""
    pytest.importorskip("vllm.version", reason="vLLM is not installed")
    executor = VllmExecutor()
    yield Runs(executor, tmp_path_factory.mktemp("runs"))
    executor.close()


@pytest.fixture
def make_adapter(tmp_path: Path) -> Callable[..., str]:
    """Makes a LoRA adapter of strong random weights in a directory, as PEFT saves it, and gives its path."""
    pytest.importorskip("torch")

    def make(name: str, *, seed: int, rank: int = 8, width: int = HIDDEN) -> str:
        return str(write_adapter(tmp_path / name, seed=seed, rank=rank, width=width))

    return make
