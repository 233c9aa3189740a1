"""Means over a stream of rows, and their standard errors."""

from __future__ import annotations

import math
import random
import statistics

import pytest

from mloc_tasks.executors.evaluate.scores import Mean, Means, nested


def test_mean_and_standard_error_agree_with_the_textbook() -> None:
    values = [random.Random(3).uniform(-5, 5) + 1e6 for _ in range(500)]
    mean = Mean()
    for value in values:
        mean.add(value)
    assert mean.mean == pytest.approx(statistics.fmean(values))
    assert mean.stderr == pytest.approx(statistics.stdev(values) / math.sqrt(500))


def test_zeros_added_at_the_end_are_like_zeros_on_the_way() -> None:
    late, early = Mean(), Mean()
    for value in (0.0, 0.0, 0.0, 1.0, 0.5, 1.0):
        early.add(value)
    for value in (1.0, 0.5, 1.0):
        late.add(value)
    merged = late.with_zeros(3)
    assert (merged.count, merged.mean) == (6, pytest.approx(early.mean))
    assert merged.stderr == pytest.approx(early.stderr)


def test_nothing_has_no_standard_error() -> None:
    assert Mean().with_zeros(0).stderr is None
    one = Mean()
    one.add(1.0)
    assert one.stderr is None


@pytest.mark.parametrize(("zero", "mean", "count"), [(True, 0.5, 4), (False, 1.0, 2)])
def test_failed_rows_count_as_zero_or_not_at_all(zero: bool, mean: float, count: int) -> None:
    means = Means([("m",)], zero=zero)
    for _ in range(2):
        means.add({("m",): 1.0, ("f", "a"): 1.0})
        means.add_failed()
    for found in means.result().values():
        assert (found.mean, found.count) == (mean, count)


def test_several_values_of_one_metric_are_nested() -> None:
    assert nested({("a",): 1, ("b", "x"): 2, ("b", "y"): 3}) == {"a": 1, "b": {"x": 2, "y": 3}}
