"""Trainings of two processes, in a host."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from tests.host.conftest import Attempt, Hosts
from tests.plugins.mloc_test_troupe import TroupeExecutor

TWO = {"nproc_per_node": 2}


def begin(hosts: Hosts, *do: list[Any], training: dict[str, Any] = TWO, **options: Any) -> Attempt:
    """Start a training whose processes do these steps: `[who, what, ...]`, who being a rank or "all"."""
    start: Any = partial(hosts.start, executor=TroupeExecutor)
    attempt: Attempt = start(*do, training=training, **options)
    return attempt


def pids(attempt: Attempt) -> list[int]:
    """The process ids that the two have left in files by the step `tell_pid`, rank 0's first."""
    return [int((attempt.out_dir / f"pid-{rank}").read_text()) for rank in (0, 1)]


def rows(folder: Path, count: int) -> dict[str, Any]:
    """Input rows in a file, as a host is given them."""
    path = folder / "rows.jsonl"
    path.write_text("".join(f'"row {number}"\n' for number in range(count)))
    return {"path": str(path), "start": 0, "count": count}
