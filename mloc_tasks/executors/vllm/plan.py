"""What an engine is made from: the part of a stage that two of them must have in common to share it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mloc_tasks.executors.vllm.adapters import lora_rank, whole_checkpoint
from mloc_tasks.executors.vllm.arguments import canonical
from mloc_tasks.executors.vllm.support import block


def engine_key(document: Mapping[str, Any]) -> str:
    """The same for stages that one engine can serve. Of adapters only the rank counts: they come with the requests.

    `document` is the stage's spec with snake_case keys, references resolved, and files on this machine.
    """
    model = block(document, "model")
    hardware = block(block(document, "resources"), "hardware")
    arguments = canonical(block(model, "vllm"))
    parts = {
        "source": model.get("source"),
        "checkpoint": whole_checkpoint(document),
        "arguments": arguments,
        "config": model.get("config"),
        "gpus": block(hardware, "gpu").get("count"),
        "enforce_cpu": bool(document.get("enforce_cpu")),
        "lora_rank": engine_rank(document),
    }
    return json.dumps(parts, sort_keys=True, default=str)


def engine_rank(document: Mapping[str, Any]) -> int | None:
    """The LoRA rank to make an engine for; None when there are no adapters, or `model.vllm.enable_lora` decides.

    With `enable_lora` in the block, stages with and without adapters share one engine.
    """
    if "enable_lora" in canonical(block(block(document, "model"), "vllm")):
        return None
    return lora_rank(document)
