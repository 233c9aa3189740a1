"""Reward functions that a model of letters can be trained by."""

from __future__ import annotations

SEEN: list[dict[str, object]] = []
"""What `wanted_letters` was shown."""


def lower_case(prompts: list[str], completions: list[str]) -> list[float]:
    """The share of lower-case letters."""
    return [sum(letter.islower() for letter in text) / max(len(text), 1) for text in completions]


def wanted_letters(
    prompts: list[str], completions: list[str], letters: list[str], *, weight: list[float]
) -> list[float]:
    """How many of the letters that the row names there are."""
    SEEN.append({"prompts": prompts, "completions": completions, "letters": letters, "weight": weight})
    return [
        sum(text.count(each) for each in wanted) * factor
        for text, wanted, factor in zip(completions, letters, weight, strict=True)
    ]


def broken(prompts: list[str], completions: list[str]) -> list[float]:
    raise KeyError("no such letter")
