"""Each fault once, with a fixed seed; `test_many_faults` has the random ones. The common ones run with every test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.chaos.driver import Script, Verdict, play
from tests.chaos.faults import FAULTS
from tests.chaos.pipeline import Pipeline
from tests.chaos.stack import TIMEOUT_SEC, Stack

SEED = 7
SMALL = Pipeline(rows=64, seconds=0.05)
HALF = SMALL.total // 2
STALLS_SEC = 15.0  # of a busy machine; nothing that is lost for good comes again in that time
MOST_LOST_SEC = {"child_killed": 0.0, "worker_killed": TIMEOUT_SEC, "worker_paused": TIMEOUT_SEC}
# What a shard's end sends next, and what a client sends, can be lost between the ledger and the broker when Redis dies.
MAY_NEED_RECONCILE = {"broker_restarted", "broker_killed", "connections_cut"}
COMMON = {"child_killed", "worker_killed", "broker_restarted"}


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with Stack() as stack:
        yield stack


def check(verdict: Verdict) -> None:
    assert not verdict.problems, str(verdict)
    for fault, seconds in verdict.lost:
        assert seconds < MOST_LOST_SEC[fault] + STALLS_SEC, str(verdict)


@pytest.mark.parametrize(
    "fault", [pytest.param(fault, marks=() if fault in COMMON else pytest.mark.chaos) for fault in FAULTS]
)
def test_a_fault_in_the_middle_loses_and_doubles_nothing(stack: Stack, fault: str) -> None:
    verdict = play(stack, Script(seed=SEED, faults=((HALF, fault),)), pipeline=SMALL)
    check(verdict)
    assert fault in MAY_NEED_RECONCILE or not verdict.repairs, str(verdict)


@pytest.mark.parametrize("death", ["after", pytest.param("during", marks=pytest.mark.chaos)])
def test_a_client_that_dies_when_it_has_submitted_does_not_matter(stack: Stack, death: str) -> None:
    verdict = play(stack, Script(seed=SEED, faults=(), client_death=death), pipeline=SMALL)
    check(verdict)
    assert death == "during" or not verdict.repairs, str(verdict)
