"""What killed processes leave on a machine's own disk does not stay there."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from scheduler import submit_yaml
from tests.durability.conftest import StartWorker, document, rows
from tests.durability.test_recovery import kill_worker, pool_children
from tests.durability.test_saved_checkpoints import wait_until


@pytest.mark.parametrize("victim", ["worker", "pool child"])
def test_what_a_killed_process_left_goes_while_its_run_goes_on(
    start_worker: StartWorker, victim: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("MLOC_SCRATCH_DIR", str(scratch))
    worker = start_worker("one")
    run = submit_yaml(document({"taskType": "slow", "data": rows(1), "until": str(tmp_path / "never")}))
    wait_until(lambda: any(any(folder.iterdir()) for folder in scratch.iterdir()))
    left = set(scratch.iterdir())
    if victim == "worker":
        kill_worker(worker)
        start_worker("another")
    else:
        os.kill(max(child.pid for child in pool_children(worker) if child.ppid() == worker.pid), signal.SIGKILL)
    wait_until(lambda: not left & set(scratch.iterdir()))
    run.cancel()
