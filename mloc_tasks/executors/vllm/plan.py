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
    parts = {
        "source": model.get("source"),
        "checkpoint": whole_checkpoint(document),
        "arguments": canonical(block(model, "vllm")),
        "config": model.get("config"),
        "gpus": block(hardware, "gpu").get("count"),
        "enforce_cpu": bool(document.get("enforce_cpu")),
        "lora_rank": lora_rank(document),
    }
    return json.dumps(parts, sort_keys=True, default=str)
