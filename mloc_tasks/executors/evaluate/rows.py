"""From a row (an upstream item with its reference) to an item with scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mloc_tasks.errors import ExecutionError, UnresolvedReferenceError
from mloc_tasks.executors.evaluate.metrics import NamedMetric, metric_of
from mloc_tasks.executors.evaluate.scores import Name, Scores, ScoringError, nested
from mloc_tasks.spec.expressions import get_path
from mloc_tasks.spec.model.evaluate import parse_item_path

if TYPE_CHECKING:
    from mloc_tasks.spec.model.evaluate import Evaluate


@dataclass
class Scorer:
    """Scores rows by all of a stage's metrics.

    Attributes:
        metrics: the metrics.
        path: where an item's answer stands.
    """

    metrics: Sequence[NamedMetric]
    path: tuple[str | int, ...]
    _names: dict[str, frozenset[Name]] = field(default_factory=dict)

    def score(self, row: dict[str, Any], index: int) -> tuple[dict[str, Any], Scores | None]:
        """The row's item, and its scores; None where it has none, and the item says why.

        Raises ExecutionError when an item that did not fail has no answer at `path`: the spec asks for what is not
        there.
        """
        item = row["item"]
        found = {"index": index, **({"input": item["input"]} if "input" in item else {})}
        if item.get("ok") is False:
            return {**found, "ok": False, "error": f"failed upstream: {item.get('error', 'no error given')}"}, None
        try:
            output = get_path(item, self.path)
        except UnresolvedReferenceError as error:
            raise ExecutionError(f"item {index}: evaluate.output_path: {error}") from error
        found["output"] = output
        if "reference" in row:
            found["reference"] = row["reference"]
        try:
            scores = self._scores(output, row.get("reference"), item)
        except ScoringError as error:
            return {**found, "ok": False, "error": str(error)}, None
        return {**found, "scores": nested(scores)}, scores

    def known_names(self) -> list[Name]:
        """The names of scores that are known before any row is scored."""
        return [(metric.label,) for metric in self.metrics if not metric.several]

    def _scores(self, output: Any, reference: Any, item: dict[str, Any]) -> Scores:
        scores: Scores = {}
        for metric in self.metrics:
            values = metric.score(output, reference, item)
            names = self._names.setdefault(metric.label, frozenset(values))
            if names != values.keys():
                first, now = (", ".join(sorted(".".join(name) for name in each)) for each in (names, values))
                raise ScoringError(f"{metric.label} gave {now} here, but {first} before")
            scores |= values
        return scores


def scorer_of(evaluate: Evaluate) -> Scorer:
    """The scorer that a stage asks for. Raises ExecutionError for a metric that is not there."""
    metrics = [metric_of(each, has_references=evaluate.has_references) for each in evaluate.metrics]
    return Scorer(metrics=metrics, path=parse_item_path(evaluate.output_path))
