"""Rewards for benchmarks, as `module:function`: f(prompts, completions) -> one number each."""

from __future__ import annotations

from functools import lru_cache
from typing import Any


def short(prompts: list[Any], completions: list[Any], **_: Any) -> list[float]:
    """Few characters are good; costs no time."""
    texts = [each if isinstance(each, str) else each[0]["content"] for each in completions]
    return [-len(text) / 100 for text in texts]


def positive(prompts: list[str], completions: list[str]) -> list[float]:
    """VADER's compound score, -1 to 1 (Hutto and Gilbert 2014)."""
    return [float(_vader().polarity_scores(text)["compound"]) for text in completions]


@lru_cache(maxsize=1)
def _vader() -> Any:
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    return SentimentIntensityAnalyzer()
