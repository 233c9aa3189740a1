"""What metrics give, and their means over a stream of rows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Name = tuple[str, ...]
"""`("exact_match",)`, or `("rouge", "f1")` for one value of a metric that gives several."""
Scores = dict[Name, float]


class ScoringError(Exception):
    """One row has no score; the message goes into its item and the others go on."""


@dataclass(slots=True)
class Mean:
    """A mean and its standard error over numbers as they come (Welford 1962), in constant memory."""

    count: int = 0
    total: float = 0.0  # the mean comes from it, so that it is exact where scores are whole numbers
    _center: float = 0.0
    _squares: float = 0.0  # sum of squared distances from the mean

    def add(self, value: float) -> None:
        """Take in one number."""
        self.count += 1
        self.total += value
        distance = value - self._center
        self._center += distance / self.count
        self._squares += distance * (value - self._center)

    def with_zeros(self, zeros: int) -> Mean:
        """The same with that many zeros more (Chan, Golub, LeVeque 1979: two samples merged)."""
        count = self.count + zeros
        if count == 0:
            return Mean()
        squares = self._squares + self._center**2 * self.count * zeros / count
        return Mean(count, self.total, self._center * self.count / count, squares)

    @property
    def mean(self) -> float:
        """The mean; 0 of nothing."""
        return self.total / self.count if self.count else 0.0

    @property
    def stderr(self) -> float | None:
        """Sample standard deviation / sqrt(count); None for fewer than two numbers."""
        if self.count < 2:
            return None
        return math.sqrt(self._squares / (self.count - 1) / self.count)


class Means:
    """Means of all metrics.

    Args:
        names: metrics known beforehand, so that they are reported also when no row has a score.
        zero: whether rows that failed count as 0; they are left out else.
    """

    def __init__(self, names: Iterable[Name], *, zero: bool) -> None:
        self._means = {name: Mean() for name in names}
        self._zero = zero
        self._failed = 0

    def add(self, scores: Scores) -> None:
        """Take in a row's scores. All rows have the same."""
        for name, value in scores.items():
            self._means.setdefault(name, Mean()).add(value)

    def add_failed(self) -> None:
        """Take in a row without scores."""
        self._failed += 1

    def result(self) -> dict[Name, Mean]:
        """Each metric's mean; `count` 0 where there is nothing to take it from."""
        zeros = self._failed if self._zero else 0
        return {name: mean.with_zeros(zeros) for name, mean in self._means.items()}


def nested(values: Mapping[Name, Any]) -> dict[str, Any]:
    """`{("rouge", "f1"): x}` as `{"rouge": {"f1": x}}`, as results hold it."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if len(name) == 1:
            found[name[0]] = value
        else:
            found.setdefault(name[0], {})[name[1]] = value
    return found
