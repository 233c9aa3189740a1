"""`inference.max_failed_items` decides when failed rows fail the stage."""

from __future__ import annotations

import pytest

from mloc_tasks.errors import ExecutionError
from mloc_tasks.executors.generation.failures import FailureLimit


def items(failed: int, rows: int) -> list[dict[str, object]]:
    good = [{"index": index, "output": ""} for index in range(failed, rows)]
    return [{"index": index, "ok": False, "error": "too long"} for index in range(failed)] + good


@pytest.mark.parametrize(("limit", "failed"), [(0, 10), (3, 3), (0.3, 3), (1.0, 10)])
def test_as_many_as_allowed_are_reported(limit: float, failed: int) -> None:
    FailureLimit(limit, rows=10).check(items(failed, 10))


@pytest.mark.parametrize(("limit", "failed"), [(3, 4), (0.3, 4), (1, 2), (0.05, 1)])
def test_one_more_fails_the_stage_with_the_first_error(limit: float, failed: int) -> None:
    with pytest.raises(ExecutionError, match=rf"{failed} of 10 rows failed.*row 0: too long"):
        FailureLimit(limit, rows=10).check(items(failed, 10))


def test_failures_of_earlier_attempts_count() -> None:
    with pytest.raises(ExecutionError, match=r"4 of 10 rows failed; inference\.max_failed_items 3 allows 3$"):
        FailureLimit(3, rows=10, failed=4).check([])


def test_failures_add_up_over_windows() -> None:
    limit = FailureLimit(1, rows=10)
    limit.check(items(1, 5))
    with pytest.raises(ExecutionError):
        limit.check(items(1, 5))


def test_a_shard_may_use_what_the_whole_stage_is_allowed() -> None:
    FailureLimit(0.05, rows=8, stage_rows=512).check(items(8, 8))
    with pytest.raises(ExecutionError, match=r"26 of 64 rows failed.*allows 25 in the stage's 512"):
        FailureLimit(0.05, rows=64, stage_rows=512).check(items(26, 64))
