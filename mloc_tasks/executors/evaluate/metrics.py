"""The metrics of a stage: what each gives for an output and what was expected."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from mloc_tasks.executors.evaluate.functions import MetricFunction, scores_of
from mloc_tasks.executors.evaluate.scores import Scores, ScoringError
from mloc_tasks.executors.evaluate.text import as_text, normaliser
from mloc_tasks.executors.named_functions import imported_function, installed_function
from mloc_tasks.spec.metrics import METRIC_GROUP

if TYPE_CHECKING:
    from mloc_tasks.spec.model.evaluate import Metric

Score = Callable[[Any, Any, dict[str, Any]], Scores]
"""Of output, reference and item. Raises ScoringError where the row cannot be scored."""


@dataclass(frozen=True, kw_only=True)
class NamedMetric:
    """A metric ready to score; `several` says that its names are known only from what it gives."""

    label: str
    score: Score
    several: bool = False


def metric_of(metric: Metric, *, has_references: bool) -> NamedMetric:
    """A metric of the spec. Raises ExecutionError for a function that cannot be imported."""
    if metric.type == "exact_match":
        return NamedMetric(label=metric.label, score=_compared(metric, _equal))
    if metric.type == "contains":
        return NamedMetric(label=metric.label, score=_compared(metric, _within))
    if metric.type == "regex":
        return NamedMetric(label=metric.label, score=_regex(metric, has_references=has_references))
    target = metric.function
    function = (
        installed_function(metric.type, group=METRIC_GROUP, what="metric")
        if target is None
        else imported_function(target, what="metric function")
    )
    return NamedMetric(label=metric.label, score=partial(_called, function, metric.label), several=True)


def _equal(output: str, reference: str) -> bool:
    return output == reference


def _within(output: str, reference: str) -> bool:
    return reference in output


def _compared(metric: Metric, right: Callable[[str, str], bool]) -> Score:
    normal = normaliser(metric.normalize)

    def score(output: Any, reference: Any, item: dict[str, Any]) -> Scores:
        text = normal(as_text(output))
        return {(metric.label,): float(any(right(text, normal(answer)) for answer in _answers(reference)))}

    return score


def _regex(metric: Metric, *, has_references: bool) -> Score:
    assert metric.pattern is not None
    pattern = re.compile(metric.pattern)
    if not (has_references if metric.compare is None else metric.compare):
        return lambda output, reference, item: {(metric.label,): float(pattern.search(as_text(output)) is not None)}
    find = _finder(pattern, metric)
    normal = normaliser(metric.normalize)
    within = None if metric.reference_pattern is None else _finder(re.compile(metric.reference_pattern), metric)

    def score(output: Any, reference: Any, item: dict[str, Any]) -> Scores:
        answers = _answers(reference)
        if within is not None:
            answers = [found for answer in answers if (found := within(answer)) is not None]
            if not answers:
                raise ScoringError(f"{metric.label}: reference_pattern finds nothing in the reference")
        found = find(as_text(output))
        right = found is not None and normal(found) in map(normal, answers)
        return {(metric.label,): float(right)}

    return score


def _finder(pattern: re.Pattern[str], metric: Metric) -> Callable[[str], str | None]:
    """What finds the answer: the group of the first, or last, match. None where nothing matches that has the group."""
    group: int | str = metric.group if metric.group is not None else min(pattern.groups, 1)

    def find(text: str) -> str | None:
        matches: Iterable[re.Match[str]] = pattern.finditer(text)
        if metric.occurrence == "last":
            matches = deque(matches, maxlen=1)
        return next((match[group] for match in matches), None)

    return find


def _answers(reference: Any) -> list[str]:
    """The right answers as text: several where the reference is a list."""
    if reference is None or reference == []:
        raise ScoringError("the row has no reference")
    return [as_text(each) for each in reference] if isinstance(reference, list | tuple) else [as_text(reference)]


def _called(function: MetricFunction, label: str, output: Any, reference: Any, item: dict[str, Any]) -> Scores:
    try:
        value = function(output, reference, item)
    except Exception as error:  # the boundary to code of others: what it raises is recorded in the row's item
        raise ScoringError(f"{label} raised {type(error).__name__}: {error}") from error
    return scores_of(value, label)
