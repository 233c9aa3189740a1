"""The executor with its engine for a module's tests, and LoRA adapters for the model."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from vllm_runs import HIDDEN, Runs

from mloc_tasks.executors.vllm import VllmExecutor


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
    torch: Any = pytest.importorskip("torch")
    from safetensors.torch import save_file

    def make(name: str, *, seed: int, rank: int = 8, width: int = HIDDEN) -> str:
        generator = torch.Generator().manual_seed(seed)
        folder = tmp_path / name
        folder.mkdir()
        config = {"peft_type": "LORA", "r": rank, "lora_alpha": 16, "target_modules": ["q_proj"], "bias": "none"}
        (folder / "adapter_config.json").write_text(json.dumps({**config, "task_type": "CAUSAL_LM"}))
        layer = "base_model.model.model.layers.0.self_attn.q_proj"
        weights = {
            f"{layer}.lora_A.weight": torch.randn(rank, width, generator=generator),
            f"{layer}.lora_B.weight": torch.randn(HIDDEN, rank, generator=generator),
        }
        save_file(weights, folder / "adapter_model.safetensors")
        return str(folder)

    return make
