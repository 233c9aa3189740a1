"""Metrics that are Python functions of a plugin."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping
from functools import reduce
from importlib.metadata import entry_points
from typing import Any

from mloc_tasks.errors import ExecutionError
from mloc_tasks.executors.evaluate.scores import Scores, ScoringError
from mloc_tasks.spec.metrics import METRIC_GROUP

MetricFunction = Callable[[Any, Any, dict[str, Any]], object]
"""Of output, reference (None where there is none) and item; gives a number, a truth value, or names with such."""


def imported(target: str) -> MetricFunction:
    """The function `module:function`. Raises ExecutionError when there is none."""
    module, _, attribute = target.partition(":")
    try:
        found = reduce(getattr, attribute.split("."), importlib.import_module(module))
    except (ImportError, AttributeError) as error:
        raise ExecutionError(
            f"the metric function {target} cannot be imported: {error}",
            hint="install its package on the workers, or put its folder on their PYTHONPATH",
        ) from error
    return _called(found, target)


def installed(name: str) -> MetricFunction:
    """The function behind an entry point of group `mloc.metrics`. Raises ExecutionError when there is none, or two."""
    found = {each.value: each for each in entry_points(group=METRIC_GROUP, name=name)}
    if not found:
        raise ExecutionError(
            f"no package on this worker brings the metric {name!r}", hint="install the one that you submitted with"
        )
    if len(found) > 1:
        raise ExecutionError(f"the metric {name!r} is claimed by {' and '.join(found)}", hint="uninstall one of them")
    (entry,) = found.values()
    try:
        return _called(entry.load(), f"{name} ({entry.value})")
    except (ImportError, AttributeError) as error:
        raise ExecutionError(f"the metric {name} ({entry.value}) cannot be imported: {error}") from error


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


def _called(found: Any, target: str) -> MetricFunction:
    if not callable(found):
        raise ExecutionError(f"the metric {target} is {type(found).__name__}, not a function")
    function: MetricFunction = found
    return function
