"""The metrics of task type `evaluate` by name: the built-in ones, and those that plugins bring."""

from __future__ import annotations

from functools import lru_cache

BUILT_IN_METRICS = ("exact_match", "contains", "regex", "function")
METRIC_GROUP = "mloc.metrics"
"""Entry points of this group are functions `(output, reference, item) -> float | bool | dict of them`."""


@lru_cache(maxsize=1)
def installed_metrics() -> frozenset[str]:
    """Names of metrics that installed plugins bring. Read from package metadata; nothing is imported."""
    from importlib.metadata import entry_points

    return frozenset(entry.name for entry in entry_points(group=METRIC_GROUP))
