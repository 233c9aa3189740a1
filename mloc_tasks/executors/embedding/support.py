"""What a spec may say that no embedding executor can do; known from the document, before anything is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def unsupported(document: Mapping[str, Any]) -> str | None:
    """Why a stage (merged spec, snake_case keys) cannot be done, or None when it can."""
    model = document.get("model")
    if isinstance(model, Mapping) and model.get("adapters"):
        return "embedding takes no adapters; leave model.adapters out and name a model that they are merged into"
    return None
