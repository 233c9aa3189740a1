"""Metrics that are Python functions of a plugin."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from mloc_tasks.executors.evaluate.scores import Scores, ScoringError

MetricFunction = Callable[[Any, Any, dict[str, Any]], object]
"""Of output, reference (None where there is none) and item; gives a number, a truth value, or names with such."""


def scores_of(value: object, label: str) -> Scores:
    """What a metric function returned, as scores. Raises ScoringError for anything but finite numbers."""
    if isinstance(value, Mapping):
        if not value:
            raise ScoringError(f"{label} gave no values")
        return {(label, str(key)): _number(each, f"{label}.{key}") for key, each in value.items()}
    return {(label,): _number(value, label)}


def _number(value: object, what: str) -> float:
    if isinstance(value, Mapping | str) or not hasattr(value, "__float__"):
        raise ScoringError(f"{what} gave {type(value).__name__}, not a number or a truth value")
    number = float(value)  # NumPy's and PyTorch's scalars as well
    if not math.isfinite(number):
        raise ScoringError(f"{what} gave {number}")
    return number
