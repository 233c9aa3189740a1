"""A reward for benchmarks, as `module:function`."""

from __future__ import annotations

from typing import Any


def short(prompts: list[Any], completions: list[Any], **_: Any) -> list[float]:
    """Few characters are good; costs no time."""
    texts = [each if isinstance(each, str) else each[0]["content"] for each in completions]
    return [-len(text) / 100 for text in texts]
