"""Randomized runs, as many as time allows; `python -m tests.chaos.run_many` plays any number, or one seed again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.chaos.faults import FAULTS
from tests.chaos.run_many import run_many, summary

SEED = int(os.environ.get("CHAOS_SEED", "1"))
SECONDS = float(os.environ.get("CHAOS_SECONDS", "180"))
MOST_RUNS = 1_000


@pytest.mark.chaos
def test_no_shard_is_lost_doubled_or_stuck_whatever_dies(tmp_path: Path) -> None:
    verdicts = run_many(SEED, MOST_RUNS, kinds=tuple(FAULTS), keep=tmp_path, most_sec=SECONDS)
    print(summary(verdicts))
    assert not [str(verdict) for verdict in verdicts if verdict.problems]
