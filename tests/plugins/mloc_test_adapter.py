"""An executor that makes what a LoRA training would, for tests of the stages that come after one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

from mloc_tasks.executors import Executor, Task

HIDDEN = 576  # of SmolLM2-135M


def write_adapter(folder: Path, *, seed: int, rank: int = 8, width: int = HIDDEN) -> Path:
    """A LoRA adapter of strong random weights for SmolLM2-135M's first layer, as PEFT saves it."""
    import torch
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(seed)
    folder.mkdir()
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": 16, "target_modules": ["q_proj"], "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps({**config, "task_type": "CAUSAL_LM"}))
    layer = "base_model.model.model.layers.0.self_attn.q_proj"
    weights = {
        f"{layer}.lora_A.weight": torch.randn(rank, width, generator=generator),
        f"{layer}.lora_B.weight": torch.randn(HIDDEN, rank, generator=generator),
    }
    save_file(weights, folder / "adapter_model.safetensors")
    return folder


class AdapterExecutor(Executor):
    """Writes an adapter of random weights with the stage's `seed`."""

    name: ClassVar[str] = "adapter"
    light: ClassVar[bool] = True
    artifact_fields: ClassVar[dict[str, str]] = {"final_lora_url": "final_lora"}

    def run(self, task: Task, out_dir: Path) -> dict[str, Any]:
        write_adapter(out_dir / "final_lora", seed=task["spec"]["seed"])
        return {"ok": True, "model": "random"}
