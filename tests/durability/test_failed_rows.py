"""`max_failed_items` counts the failed rows of a whole stage, however it is split."""

from __future__ import annotations

from typing import Any

import pytest

from mloc_tasks.ledger import State
from scheduler import submit_yaml
from tests.durability.conftest import StartWorker, document, rows
from tests.durability.test_recovery import WAIT_SEC

SPLIT = {"enabled": True, "shard_size": 10}


def spec(**more: Any) -> dict[str, Any]:
    """40 rows in four shards; those of the last one fail."""
    return document({"taskType": "slow", "data": rows(40), "parallel": SPLIT, "bad_from": 30, **more})


@pytest.mark.parametrize("allowed", ["25%", 10])
def test_a_shard_may_fail_wholly_where_the_stage_allows_as_many_rows(start_worker: StartWorker, allowed: Any) -> None:
    start_worker("one")
    run = submit_yaml(spec(max_failed=0.25, inference={"max_failed_items": allowed}))
    assert run.wait(WAIT_SEC) is State.DONE
    assert sum(item.get("ok") is False for item in run.result()["items"]) == 10


def test_shards_of_which_none_has_too_many_fail_the_stage_together(start_worker: StartWorker) -> None:
    start_worker("one")
    run = submit_yaml(spec(bad_from=5, inference={"max_failed_items": 34}))
    assert run.wait(WAIT_SEC) is State.FAILED
    error = run.status().run.error
    assert error is not None
    assert "35 of 40 rows failed; inference.max_failed_items 34 allows 34" in error.message
