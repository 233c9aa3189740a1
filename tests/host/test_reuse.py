"""Which host an attempt gets: a warm one, a new one in another's place, and in which order they are served."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import psutil
import pytest

from mloc_tasks.cpus import usable_cpus
from mloc_tasks.errors import AttemptCancelledError, UnfitWorkerError
from tests.host.conftest import WAIT_SEC, Hosts, StartPool
from tests.plugins.mloc_test_script import ChorusExecutor, OnceExecutor
from tests.waiting import wait_until


def test_a_warm_host_is_used_again(hosts: Hosts) -> None:
    first, second = hosts.run(), hosts.run()
    assert (second["pid"], second["before"]) == (first["pid"], 1)


def test_another_model_ends_the_idle_host(hosts: Hosts) -> None:
    first, second = hosts.run(key="a"), hosts.run(key="b")
    assert first["pid"] != second["pid"]
    assert [held.process.pid for held in hosts.pool.live()] == [second["pid"]]
    assert not psutil.pid_exists(first["pid"])


def test_of_several_idle_hosts_the_one_that_was_used_longest_ago_is_ended(pool: StartPool) -> None:
    hosts = pool(cpu_hosts=2)
    a = hosts.run(key="a")["pid"]
    b = hosts.run(key="b")["pid"]
    assert hosts.run(key="a")["pid"] == a
    hosts.run(key="c")
    assert hosts.run(key="a")["pid"] == a
    assert b not in [held.process.pid for held in hosts.pool.live()]


def test_hosts_held_at_once_have_parts_of_the_cpus(pool: StartPool) -> None:
    if len(usable_cpus()) < 2:
        pytest.skip("this machine has one CPU")
    hosts = pool(cpu_hosts=2)
    first, second, third = (hosts.run(["cpus"], ["environment"], key=key) for key in "abc")
    assert not set(first["cpus"]) & set(second["cpus"])
    assert sorted([*first["cpus"], *second["cpus"]]) == sorted(usable_cpus())
    assert first["environment"]["OMP_WAIT_POLICY"] == "PASSIVE"
    assert third["cpus"] == first["cpus"], "it came in the place of the first"


def test_a_host_that_must_go_may_close_what_it_holds(pool: StartPool, monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = pool(grace_sec=WAIT_SEC)
    closed = hosts.folder / "closed"
    monkeypatch.setenv("CLOSED", str(closed))
    hosts.run(key="a")
    hosts.run(key="b")
    assert closed.exists()


def test_an_executor_that_is_not_reusable_gets_a_new_process_each_time(hosts: Hosts) -> None:
    first, second = hosts.run(executor=OnceExecutor), hosts.run(executor=OnceExecutor)
    assert first["pid"] != second["pid"]
    assert not hosts.pool.live()


def test_an_idle_host_is_ended_after_a_while_and_it_is_told(pool: StartPool) -> None:
    told: list[int] = []
    hosts = pool(idle_sec=0.1, on_change=lambda: told.append(1))
    pid = hosts.run()["pid"]
    wait_until(lambda: told == [1])
    assert not hosts.pool.live()
    assert not psutil.pid_exists(pid)


def test_a_listener_that_fails_does_not_keep_idle_hosts_alive(pool: StartPool) -> None:
    def fail() -> None:
        raise RuntimeError("Redis is away")

    hosts = pool(idle_sec=0.1, on_change=fail)
    for _ in range(2):
        pid = hosts.run()["pid"]
        wait_until(partial(_has_ended, pid))


def _has_ended(pid: int) -> bool:
    return not psutil.pid_exists(pid)


def test_exclusive_executors_serve_one_task_at_a_time(hosts: Hosts, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    first = hosts.start(["progress", 0, 1], ["wait_for", str(gate)])
    assert first.report() == ("progress", 0, 1)
    second = hosts.start(["progress", 0, 2])
    wait_until(lambda: hosts.pool.has_line)
    assert second.reports.empty()
    gate.touch()
    assert second.result()["pid"] == first.result()["pid"]


def test_concurrent_executors_serve_several_at_once(hosts: Hosts) -> None:
    files = [hosts.folder / str(number) for number in range(4)]
    steps = [["touch", str(file)] for file in files], [["wait_for", str(file)] for file in files]
    attempts = [
        hosts.start(steps[0][number], *steps[1], executor=ChorusExecutor) for number in range(4)
    ]  # each waits for all the others
    assert len({attempt.result()["pid"] for attempt in attempts}) == 1


def test_who_asks_for_a_host_alone_shares_it_with_nobody(hosts: Hosts) -> None:
    gates = [hosts.folder / str(number) for number in range(2)]
    before = hosts.start(["progress", 0, 1], ["wait_for", str(gates[0])], executor=ChorusExecutor)
    before.report()
    alone = hosts.start(["progress", 0, 1], ["wait_for", str(gates[1])], executor=ChorusExecutor, alone=True)
    wait_until(lambda: hosts.pool.has_line)
    after = hosts.start(executor=ChorusExecutor)
    gates[0].touch()
    alone.report()
    assert [held.busy == held.room for held in hosts.pool.live()] == [True]
    assert not after.future.done()
    gates[1].touch()
    assert after.result()["pid"] == alone.result()["pid"] == before.result()["pid"]
    assert [each.result()["before"] for each in (before, alone, after)] == [0, 1, 2]
    assert [held.busy for held in hosts.pool.live()] == [0]


def test_whoever_waits_for_another_model_is_not_overtaken_by_those_who_come_later(hosts: Hosts) -> None:
    gate = hosts.folder / "gate"
    first = hosts.start(["progress", 0, 1], ["wait_for", str(gate)], executor=ChorusExecutor, key="a")
    first.report()
    other = hosts.start(executor=ChorusExecutor, key="b")
    wait_until(lambda: hosts.pool.has_line)
    late = [hosts.start(executor=ChorusExecutor, key="a") for _ in range(3)]
    gate.touch()
    pids = {attempt.result()["pid"] for attempt in late}
    # The first one's host has ended for the other model before any of the late ones had a host.
    assert pids.isdisjoint({first.result()["pid"], other.result()["pid"]})


def test_those_who_need_no_gpu_do_not_wait_for_those_who_do(pool: StartPool) -> None:
    hosts = pool(gpus=("0",))
    gate = hosts.folder / "gate"
    busy = hosts.start(["progress", 0, 1], ["wait_for", str(gate)], gpus=1)
    busy.report()
    waiting = hosts.start(gpus=1, key="another")
    wait_until(lambda: hosts.pool.has_line)
    assert hosts.run()["ok"]
    gate.touch()
    assert waiting.result()["pid"] != busy.result()["pid"]


def test_who_is_cancelled_while_waiting_leaves_the_line(hosts: Hosts) -> None:
    gate = hosts.folder / "gate"
    busy = hosts.start(["progress", 0, 1], ["wait_for", str(gate)])
    busy.report()
    waiting = hosts.start(key="another")
    wait_until(lambda: hosts.pool.has_line)
    waiting.stop(AttemptCancelledError("enough"))
    assert str(waiting.error()) == "enough"
    assert not hosts.pool.has_line
    gate.touch()
    assert busy.result()["ok"]


def test_each_host_sees_the_gpus_it_was_given(pool: StartPool) -> None:
    hosts = pool(gpus=("2", "3", "5"))
    gate = str(hosts.folder / "gate")
    pair = hosts.start(["environment"], ["progress", 0, 1], ["wait_for", gate], gpus=2, key="a")
    pair.report()
    single = hosts.run(["environment"], gpus=1, key="b")
    none = hosts.run(["environment"], key="c")
    Path(gate).touch()
    seen = [each["environment"]["CUDA_VISIBLE_DEVICES"] for each in (pair.result(), single, none)]
    assert seen == ["2,3", "5", ""]


def test_idle_hosts_make_room_for_one_that_needs_their_gpus(pool: StartPool) -> None:
    hosts = pool(gpus=("0", "1"))
    singles = [hosts.run(gpus=1, key=key)["pid"] for key in "ab"]
    pair = hosts.run(["environment"], gpus=2, key="c")
    assert pair["environment"]["CUDA_VISIBLE_DEVICES"] == "0,1"
    assert not any(psutil.pid_exists(pid) for pid in singles)


def test_more_gpus_than_there_ever_are_is_an_error_at_once(pool: StartPool) -> None:
    attempt = pool(gpus=("0",)).start(gpus=2)
    with pytest.raises(UnfitWorkerError, match="needs 2 GPUs, and each process of this worker's pool has 1"):
        attempt.result()
