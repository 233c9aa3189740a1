"""What a spec may say that the vLLM executor cannot do; known from the document, before anything is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mloc_tasks.executors.vllm.arguments import ArgumentNameError, canonical


def unsupported(document: Mapping[str, Any]) -> str | None:
    """Why this executor cannot do a stage (merged spec, snake_case keys), or None when it can."""
    model = block(document, "model")
    if model.get("vllm") is not None and model.get("transformers") is not None:
        return "model.vllm and model.transformers exclude each other: keep the block of the executor that is meant"
    adapters = model.get("adapters")
    if isinstance(adapters, list | tuple) and len(adapters) > 1:
        names = ", ".join(str(each.get("name")) for each in adapters if isinstance(each, Mapping))
        return f"a stage answers with one adapter, but model.adapters lists {names}: keep one, or make a stage of each"
    try:
        canonical(block(model, "vllm"))
    except ArgumentNameError as error:
        return str(error)
    return None


def block(document: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """The mapping under `key`; empty where there is none."""
    found = document.get(key)
    return found if isinstance(found, Mapping) else {}
