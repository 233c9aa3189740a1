"""What a spec may say that the Transformers executor cannot do; known from the document, before anything is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

STRUCTURED_OUTPUT = ("json_schema", "regex", "choice")


def unsupported(document: Mapping[str, Any]) -> str | None:
    """Why this executor cannot do a stage (merged spec, snake_case keys), or None when it can."""
    inference = _block(document, "inference")
    for key in STRUCTURED_OUTPUT:
        if inference.get(key) is not None:
            return (
                f"inference.{key} (structured output) needs the vLLM executor; the Transformers executor cannot do it"
            )
    adapters = _block(document, "model").get("adapters")
    if isinstance(adapters, list | tuple) and len(adapters) > 1:
        names = ", ".join(str(each.get("name")) for each in adapters if isinstance(each, Mapping))
        return f"a stage answers with one adapter, but model.adapters lists {names}: keep one, or make a stage of each"
    return None


def _block(document: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    block = document.get(key)
    return block if isinstance(block, Mapping) else {}
