"""A training of two processes that goes well."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from troupe import begin, rows

from mloc_tasks.errors import ConfigError
from tests.executors.executor_tasks import task_of
from tests.host.conftest import Hosts
from tests.plugins.mloc_test_troupe import LackingExecutor, TroupeExecutor
from tests.waiting import wait_until


def test_two_processes_exchange_tensors_and_the_first_ones_result_counts(hosts: Hosts) -> None:
    steps = (["all", "inputs"], ["all", "add_up", 10], ["all", "meet"], ["all", "is_first"], ["all", "threads"])
    more = (["all", "backend"], [0, "addresses"], ["all", "meet"])
    result = begin(hosts, *steps, *more, rows=rows(hosts.folder, 100)).result()
    assert (result["model"], result["world_size"], result["is_first"]) == ("of process 0", 2, True)
    assert result["add_up"] == 10 + 11
    assert result["inputs"] == len("".join(f"row {number}" for number in range(100)))
    assert result["backend"] == "gloo"
    assert result["threads"] == max(len(os.sched_getaffinity(0)) // 2, 1)
    assert result["addresses"] == ["127.0.0.1"]  # nobody listens to the network


def test_the_first_one_is_heard_while_it_runs_and_the_others_are_not(hosts: Hosts) -> None:
    gate = hosts.folder / "gate"
    attempt = begin(
        hosts,
        ["all", "progress", 1, 2],
        ["all", "log", "halfway"],
        ["all", "metrics", 1, {"loss": 0.5}],
        [0, "print", "printed by the first\n"],
        [1, "print", "printed by the second\n"],
        ["all", "wait_for", str(gate)],
        ["all", "progress", 2, 2],
    )
    assert attempt.report() == ("progress", 1, 2)
    assert attempt.report() == ("log", "halfway", "warning")
    assert attempt.report() == ("metrics", 1, {"loss": 0.5})
    assert not attempt.future.done()
    wait_until(lambda: "printed by the first" in attempt.log)
    gate.touch()
    attempt.result()
    assert attempt.report() == ("progress", 2, 2)
    assert attempt.reports.empty()
    assert "printed by the second" not in attempt.log


def test_one_process_trains_in_the_host_itself(hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "3")  # of whatever has started the worker
    monkeypatch.setenv("WORLD_SIZE", "8")
    result = begin(hosts, ["all", "environment"], ["all", "add_up", 1], training={}).result()
    assert result["world_size"] == 1
    assert result["add_up"] == 1
    assert not {"RANK", "WORLD_SIZE", "MASTER_ADDR"} & result["environment"].keys()


def test_what_must_be_installed_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="training needs absent_module, not installed under") as caught:
        LackingExecutor().run(task_of({"task_type": "lacking", "do": []}), tmp_path)
    assert caught.value.hint.startswith("pip install 'mloc[ppo]'")
    assert "MLOC_PYTHON_LACKING" in caught.value.hint


def test_what_contradicts_itself_is_refused_before_it_runs() -> None:
    stage = {"training": {"nproc_per_node": 2, "allow_multi_gpu": False}}
    assert "contradict each other" in (TroupeExecutor.unsupported(stage) or "")


def test_weights_can_lie_in_pieces_in_the_processes(hosts: Hosts) -> None:
    found = begin(hosts, ["all", "shard"]).result()["shard"]
    assert found["weights_here"] == (8 * 6 + 6) / 2
    assert found["sharded"] == pytest.approx(found["whole"], rel=1e-5)
