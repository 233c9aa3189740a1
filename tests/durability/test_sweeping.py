"""What killed processes leave on a machine's own disk does not stay there."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from mloc_tasks.scratch import in_use, make_scratch, remove_left
from mloc_tasks.settings import reset_settings
from mloc_tasks.worker import sweeper
from mloc_tasks.worker.sweeper import INTERVAL_SEC, Sweeper, sweep_soon
from scheduler import submit_yaml
from tests.durability.conftest import StartWorker, document, rows
from tests.durability.test_recovery import kill_worker, pool_children
from tests.waiting import wait_until


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
    # An empty one stays for a minute: its process might be about to use it.
    left = {folder for folder in scratch.iterdir() if any(folder.iterdir())}
    if victim == "worker":
        kill_worker(worker)
        start_worker("another")
    else:
        os.kill(max(child.pid for child in pool_children(worker) if child.ppid() == worker.pid), signal.SIGKILL)
    wait_until(lambda: not left & set(scratch.iterdir()))
    run.cancel()


def test_what_a_dying_process_holds_a_moment_longer_goes_soon_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLOC_SCRATCH_DIR", str(tmp_path))
    reset_settings()
    swept: list[str | Path] = []

    def sweep(root: str | Path) -> None:
        remove_left(root)
        swept.append(root)

    monkeypatch.setattr(sweeper, "remove_left", sweep)
    folder = make_scratch(tmp_path, "run")
    (folder / "half").mkdir()
    step = Sweeper(None)
    try:
        with in_use(folder):
            step.start(None)
            wait_until(lambda: str(tmp_path) in swept)
            swept.clear()
            sweep_soon()
            wait_until(lambda: str(tmp_path) in swept)
        began = time.monotonic()
        wait_until(lambda: not folder.exists())
        assert time.monotonic() - began < INTERVAL_SEC / 2
    finally:
        step.shutdown(None)
        monkeypatch.undo()
        reset_settings()
