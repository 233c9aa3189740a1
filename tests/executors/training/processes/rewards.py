"""A reward that any process computes alike."""

from __future__ import annotations


def length(prompts: list[str], completions: list[str]) -> list[float]:
    """Letters of the completion."""
    return [float(sum(letter.isalpha() for letter in text)) for text in completions]
