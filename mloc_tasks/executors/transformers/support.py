"""What a spec may say that the Transformers executor cannot do; known from the document, before anything is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mloc_tasks.models import SOURCE_TYPES

STRUCTURED_OUTPUT = ("json_schema", "regex", "choice")


def unsupported(document: Mapping[str, Any]) -> str | None:
    """Why this executor cannot do a stage (merged spec, snake_case keys), or None when it can."""
    inference = _block(document, "inference")
    for key in STRUCTURED_OUTPUT:
        if inference.get(key) is not None:
            return (
                f"inference.{key} (structured output) needs the vLLM executor; the Transformers executor cannot do it"
            )
    model = _block(document, "model")
    if model.get("adapters"):
        return "model.adapters is not supported by the Transformers executor in this version; use a merged model"
    if _block(document, "checkpoint").get("load") is not None:
        return "checkpoint.load is not supported for inference in this version; name the model in model.source"
    kind = _block(model, "source").get("type", "huggingface")
    if kind not in SOURCE_TYPES:
        return f"model.source.type {kind!r} is not supported in this version; supported: {', '.join(SOURCE_TYPES)}"
    return None


def _block(document: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    block = document.get(key)
    return block if isinstance(block, Mapping) else {}
