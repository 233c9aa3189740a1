"""Which attempts have a host for themselves."""

from __future__ import annotations

from unittest.mock import Mock

import pytest

from mloc_tasks.attempt import Attempt
from mloc_tasks.ledger import ShardRecord, StageJob, State

CRASH, OTHER, VANISHED = {"type": "HostCrashedError"}, {"type": "StoreUnavailableError"}, {"message": "it vanished"}


@pytest.mark.parametrize(
    ("earlier", "max_attempts", "alone"),
    [
        ([], 1, False),
        ([], 3, False),
        ([CRASH], 3, False),
        ([CRASH, OTHER], 3, True),
        ([VANISHED, CRASH], 3, True),
        ([OTHER, VANISHED], 3, False),
        ([CRASH], 2, True),
    ],
)
def test_the_last_of_several_tries_after_a_crash(earlier: list[dict[str, str]], max_attempts: int, alone: bool) -> None:
    history = tuple({"attempt": number, "error": error} for number, error in enumerate(earlier, 1))
    attempt = attempt_at(ShardRecord(shard="0", state=State.RUNNING, attempt=len(earlier) + 1, history=history))
    attempt.job.document["retry"] = {"max_attempts": max_attempts}
    assert attempt.alone is alone


def test_tries_count_from_the_resume_on() -> None:
    history = ({"attempt": 1, "error": CRASH},)
    attempt = attempt_at(ShardRecord(shard="0", state=State.RUNNING, attempt=4, base=3, history=history))
    assert not attempt.alone


def attempt_at(record: ShardRecord) -> Attempt:
    job = StageJob(
        run_id="run",
        stage="a",
        header={},
        document={},
        depends_on=(),
        scattered=False,
        queue="cpu",
        priority=0,
    )
    return Attempt(place=Mock(), job=job, record=record, report=Mock())
