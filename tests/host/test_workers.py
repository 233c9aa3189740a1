"""Hosts of real workers: how many there are, who shares them, and that none is left when the worker has ended."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from mloc_tasks.ledger import State
from scheduler import Run, submit_yaml
from tests.durability.conftest import StartWorker, broker, broker_url, document, start_worker
from tests.durability.test_recovery import WAIT_SEC, wait_for_attempt
from tests.host.conftest import processes_of
from tests.plugins.mloc_test_script import CHILDREN
from tests.waiting import wait_until

__all__ = ["broker", "broker_url", "start_worker"]


@pytest.fixture
def marked_worker(start_worker: StartWorker, of_this_test: str) -> StartWorker:
    """Starts workers whose processes are known by the mark of this test."""
    return start_worker


def pair(task_type: str, folder: Path) -> list[dict[str, Any]]:
    """The results of two stages, each of which waits for the other to have begun."""
    files = [str(folder / "a"), str(folder / "b")]
    nodes = [
        {
            "name": f"stage{number}",
            "taskType": task_type,
            "do": [["touch", files[number]], ["wait_for", files[1 - number]], ["environment"]],
        }
        for number in range(2)
    ]
    run = submit_yaml(document({"graph": {"nodes": nodes}}))
    assert run.wait(WAIT_SEC) is State.DONE, run.status().run.error
    return [run.result(f"stage{number}") for number in range(2)]


def test_each_pool_child_has_hosts_of_its_own(marked_worker: StartWorker, tmp_path: Path) -> None:
    marked_worker("one", concurrency=2)
    first, second = pair("script", tmp_path)
    assert first["pid"] != second["pid"]
    cpus = [each["environment"].get("MLOC_HOST_CPUS", "") for each in (first, second)]
    assert os.cpu_count() == 1 or cpus[0] != cpus[1]


def test_the_threads_of_a_worker_share_one_host(marked_worker: StartWorker, tmp_path: Path) -> None:
    marked_worker("one", concurrency=2, options=("-P", "threads"))
    first, second = pair("chorus", tmp_path)
    assert first["pid"] == second["pid"]


def test_who_crashes_a_shared_host_takes_no_other_along(marked_worker: StartWorker, tmp_path: Path) -> None:
    marked_worker("one", concurrency=2, options=("-P", "threads"))
    files = {name: str(tmp_path / name) for name in ("here", "crashed")}
    innocent = submit_yaml(chorus(["touch", files["here"]], ["wait_for", files["crashed"]]))
    guilty = submit_yaml(chorus(["wait_for", files["here"]], ["segfault"]))
    for run in (innocent, guilty):
        wait_for_attempt(run, stage="chorus", attempt=2)
    Path(files["crashed"]).touch()
    assert innocent.wait(WAIT_SEC) is State.DONE, innocent.status().run.error
    assert guilty.wait(WAIT_SEC) is State.FAILED
    error = guilty.status().run.error
    assert error is not None
    assert (error.type, error.attempt) == ("HostCrashedError", 2)


def chorus(*steps: list[Any]) -> dict[str, Any]:
    """A stage that shares its host."""
    retry = {"maxAttempts": 2, "backoffSeconds": 0.01}
    return document({"taskType": "chorus", "do": steps, "retry": retry})


def test_the_worker_s_own_processes_never_load_torch(marked_worker: StartWorker, of_this_test: str) -> None:
    worker = marked_worker("one")
    stages = [
        {"name": "hosted", "taskType": "script", "do": [["import", "torch"], ["modules"]]},
        {"name": "inner", "taskType": "inner", "do": [["modules"]]},
    ]
    run = submit_yaml(document({"stages": stages}))
    assert run.wait(WAIT_SEC) is State.DONE, run.status().run.error
    assert "torch" in run.result("hosted")["modules"]
    assert not {"torch", "transformers", "vllm"} & set(run.result("inner")["modules"])
    with_torch = [process for process in processes_of(of_this_test) if _has_loaded(process, "libtorch")]
    assert [process.pid for process in with_torch] == [run.result("hosted")["pid"]]
    assert worker.pid not in [process.pid for process in with_torch]


def _has_loaded(process: psutil.Process, library: str) -> bool:
    return library in Path(f"/proc/{process.pid}/maps").read_text()


@pytest.mark.parametrize("pool", [(), ("-P", "threads")], ids=["prefork", "threads"])
@pytest.mark.parametrize("end", ["killed", "past its grace"])
def test_a_worker_that_ends_leaves_no_host_behind(
    marked_worker: StartWorker,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    of_this_test: str,
    pool: Sequence[str],
    end: str,
) -> None:
    monkeypatch.setenv("MLOC_SHUTDOWN_GRACE_SEC", "0.2")
    worker = marked_worker("one", options=pool)
    began_one(tmp_path)
    assert len(processes_of(of_this_test)) >= 1 + 2 + len(CHILDREN)
    if end == "killed":
        os.killpg(worker.pid, signal.SIGKILL)
    else:
        os.kill(worker.pid, signal.SIGTERM)
    wait_until(lambda: not processes_of(of_this_test))


def test_a_killed_pool_child_leaves_no_host_behind_while_its_worker_goes_on(
    marked_worker: StartWorker, tmp_path: Path, of_this_test: str
) -> None:
    worker = marked_worker("one", concurrency=2)
    run = began_one(tmp_path)
    (child,) = [each for each in psutil.Process(worker.pid).children() if each.children()]
    left = {*child.children(recursive=True)} & {*processes_of(of_this_test)}
    assert len(left) == 2 + len(CHILDREN)  # guard and host too
    child.kill()
    wait_until(lambda: not left & set(processes_of(of_this_test)))
    wait_for_attempt(run, stage="script", attempt=2)
    assert worker.pid in [process.pid for process in processes_of(of_this_test)]


@pytest.mark.parametrize("task_type", ["script", "chorus"])
def test_a_cancelled_run_leaves_nothing_running_in_a_pool_of_threads(
    marked_worker: StartWorker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, of_this_test: str, task_type: str
) -> None:
    monkeypatch.setenv("MLOC_CANCEL_GRACE_SEC", "0.3")
    worker = marked_worker("one", options=("-P", "threads"))
    run = began_one(tmp_path, task_type)
    run.cancel()
    assert run.wait(WAIT_SEC) is State.CANCELLED
    wait_until(lambda: [process.pid for process in processes_of(of_this_test)] == [worker.pid])


def began_one(folder: Path, task_type: str = "script") -> Run:
    """A run whose only task has started children of every kind and goes on for ever."""
    steps = [["start", *CHILDREN], ["touch", str(folder / "began")], ["sleep_for_ever"]]
    run = submit_yaml(document({"taskType": task_type, "folder": str(folder), "do": steps}))
    wait_until((folder / "began").exists)
    return run
