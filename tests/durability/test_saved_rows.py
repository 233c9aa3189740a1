"""Rows that were finished before their process died are not done again."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest

from mloc_tasks.ledger import State
from scheduler import Run, submit_yaml
from scheduler.embedded import LocalWorker
from tests.durability.conftest import StartWorker, document, rows
from tests.durability.test_recovery import WAIT_SEC, pool_children
from tests.waiting import wait_until

ROWS = 40


@pytest.fixture(autouse=True)
def _save_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLOC_SAVE_ROWS_SEC", "0.2")


def spec(**more: Any) -> dict[str, Any]:
    return document({"taskType": "slow", "data": rows(ROWS), "seconds": 0.05, "retry": {"backoffSeconds": 0.1}, **more})


def saved_files(results: Path, run: Run, *, shard: str = "*") -> list[Path]:
    return sorted((results / run.id / "slow").glob(f"{shard}/rows-*/*.jsonl"))


def wait_until_saved(results: Path, run: Run, *, shard: str = "*") -> None:
    wait_until(lambda: saved_files(results, run, shard=shard))


def kill_host(worker: LocalWorker) -> None:
    hosts = [each for each in pool_children(worker) if any("boot.py" in word for word in each.cmdline()[:2])]
    assert len(hosts) == 1, hosts
    os.kill(hosts[0].pid, signal.SIGKILL)


def check(run: Run, results: Path, *, attempts: int) -> None:
    assert run.wait(WAIT_SEC) is State.DONE
    result = run.result()
    assert [item["index"] for item in result["items"]] == list(range(ROWS))
    assert [item["output"] for item in result["items"]] == [f"row {number}!" for number in range(ROWS)]
    assert result["usage"]["num_requests"] == ROWS
    assert (result["model"], result["adapter"]) == ("slow", "a-quiet-one")
    begun = [event for event in run.events() if (event.kind, event.state) == ("shard", "running")]
    assert max(event.attempt for event in begun) == attempts
    assert not saved_files(results, run)


def test_after_a_crash_of_the_host_only_the_remaining_rows_are_done(start_worker: StartWorker, tmp_path: Path) -> None:
    worker = start_worker("one")
    run = submit_yaml(spec(hangs_at=20))
    wait_until_saved(tmp_path / "results", run)
    kill_host(worker)
    check(run, tmp_path / "results", attempts=2)
    told = [event.data["message"] for event in run.events() if event.kind == "log"]
    (skipped,) = [int(line.split()[0]) for line in told if "finished by an earlier attempt" in line]
    assert 0 < skipped < ROWS


def test_the_rows_that_may_fail_are_a_share_of_all(start_worker: StartWorker, tmp_path: Path) -> None:
    worker = start_worker("one")
    run = submit_yaml(spec(hangs_at=20, bad_from=30, max_failed=0.25))
    wait_until_saved(tmp_path / "results", run)
    kill_host(worker)
    assert run.wait(WAIT_SEC) is State.DONE
    assert sum(item.get("ok") is False for item in run.result()["items"]) == 10


def test_rows_saved_by_a_worker_that_vanished_are_used_by_another(start_worker: StartWorker, tmp_path: Path) -> None:
    first = start_worker("first")
    run = submit_yaml(spec(hangs_at=20))
    wait_until_saved(tmp_path / "results", run)
    os.killpg(first.pid, signal.SIGKILL)
    start_worker("second")
    check(run, tmp_path / "results", attempts=2)
    assert any("finished by an earlier attempt" in event.data.get("message", "") for event in run.events())


def test_a_shard_in_the_middle_of_a_stage_resumes_in_its_own_rows(start_worker: StartWorker, tmp_path: Path) -> None:
    worker = start_worker("one")
    run = submit_yaml(spec(hangs_at=30, parallel={"enabled": True, "shard_size": 20}))
    wait_until_saved(tmp_path / "results", run, shard="1")
    kill_host(worker)
    check(run, tmp_path / "results", attempts=2)


def test_a_crash_after_the_last_row_costs_no_field_of_the_result(start_worker: StartWorker, tmp_path: Path) -> None:
    worker = start_worker("one")
    run = submit_yaml(spec(lingers=True))
    results = tmp_path / "results"
    wait_until(lambda: sum(len(file.read_bytes().splitlines()) for file in saved_files(results, run)) >= ROWS)
    kill_host(worker)
    check(run, tmp_path / "results", attempts=2)


def test_what_was_saved_of_a_single_row_is_removed_with_the_others(start_worker: StartWorker, tmp_path: Path) -> None:
    worker = start_worker("one")
    run = submit_yaml(spec(data=rows(1), lingers=True))
    wait_until_saved(tmp_path / "results", run)
    kill_host(worker)
    assert run.wait(WAIT_SEC) is State.DONE
    assert not saved_files(tmp_path / "results", run)


def test_a_host_that_dies_with_the_machine_leaves_no_process(start_worker: StartWorker, tmp_path: Path) -> None:
    worker = start_worker("one")
    run = submit_yaml(spec(hangs_at=20))
    wait_until_saved(tmp_path / "results", run)
    left = pool_children(worker)
    os.killpg(worker.pid, signal.SIGKILL)
    _, alive = psutil.wait_procs(left, timeout=WAIT_SEC)
    assert not alive
