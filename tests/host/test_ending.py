"""Tasks that may not go on, and all that they started."""

from __future__ import annotations

import time

import psutil
import pytest

from mloc_tasks.errors import AttemptCancelledError, AttemptTimeoutError, HostCrashedError
from tests.host.conftest import GRACE_SEC, WAIT_SEC, Attempt, Hosts, processes_of
from tests.plugins.mloc_test_script import CHILDREN, ChorusExecutor

ALL_CHILDREN = ["start", *CHILDREN]
CANCELLED = AttemptCancelledError("the run was cancelled")


def stopped(attempt: Attempt, reason: Exception = CANCELLED) -> BaseException:
    """End an attempt that has begun; how it ended."""
    assert attempt.report() == ("progress", 0, 1)
    attempt.stop(reason)
    return attempt.error()


@pytest.mark.parametrize("reason", [CANCELLED, AttemptTimeoutError("too long")])
def test_an_exclusive_task_that_may_not_go_on_ends_with_all_that_it_started(
    hosts: Hosts, of_this_test: str, reason: Exception
) -> None:
    attempt = hosts.start(ALL_CHILDREN, ["progress", 0, 1], ["sleep_for_ever"])
    assert stopped(attempt, reason) is reason
    assert not processes_of(of_this_test)
    assert hosts.run()["before"] == 0


def test_what_ignores_being_asked_is_killed_after_the_grace(hosts: Hosts, of_this_test: str) -> None:
    attempt = hosts.start(["ignore_sigterm"], ["progress", 0, 1], ["sleep_for_ever"])
    attempt.report()
    begun = time.monotonic()
    attempt.stop(CANCELLED)
    assert attempt.error() is CANCELLED
    assert GRACE_SEC <= time.monotonic() - begun < GRACE_SEC + 15
    assert not processes_of(of_this_test)


def test_what_a_crashed_host_has_started_ends_with_it(hosts: Hosts, of_this_test: str) -> None:
    attempt = hosts.start(ALL_CHILDREN, ["kill", "SIGKILL"])
    assert isinstance(attempt.error(), HostCrashedError)
    assert not processes_of(of_this_test)


def test_children_of_a_task_that_is_over_end_with_the_host(hosts: Hosts, of_this_test: str) -> None:
    hosts.run(ALL_CHILDREN)
    hosts.run(key="another")
    assert len(processes_of(of_this_test)) == 2  # the other host and its guard


def test_a_stopped_host_can_be_cancelled(hosts: Hosts, of_this_test: str) -> None:
    attempt = hosts.start(["progress", 0, 1], ["kill", "SIGSTOP"])
    assert stopped(attempt) is CANCELLED
    assert not processes_of(of_this_test)


def test_a_cancelled_task_of_a_concurrent_host_leaves_the_others_alone(hosts: Hosts) -> None:
    gate = hosts.folder / "gate"
    other = hosts.start(["progress", 0, 1], ["wait_for", str(gate)], executor=ChorusExecutor)
    other.report()
    attempt = hosts.start(["progress", 0, 1], ["wait_until_cancelled"], executor=ChorusExecutor, grace_sec=20)
    assert stopped(attempt) is CANCELLED
    gate.touch()
    assert other.result()["pid"] == hosts.run(executor=ChorusExecutor)["pid"]


def test_one_that_ignores_it_takes_the_process_down_and_the_others_are_told(hosts: Hosts) -> None:
    other = hosts.start(["progress", 0, 1], ["wait_until_cancelled"], executor=ChorusExecutor)
    other.report()
    attempt = hosts.start(["progress", 0, 1], ["sleep_for_ever"], executor=ChorusExecutor)
    assert stopped(attempt) is CANCELLED
    error = other.error()
    assert isinstance(error, HostCrashedError)
    assert "another task in it did not end within 0.3 s of being cancelled" in str(error)
    assert error.retryable


def test_a_cancel_that_comes_before_the_task_has_begun_counts(hosts: Hosts) -> None:
    other = hosts.start(["progress", 0, 1], ["wait_until_cancelled"], executor=ChorusExecutor)
    other.report()
    attempts = [hosts.start(["wait_until_cancelled"], executor=ChorusExecutor, grace_sec=20) for _ in range(8)]
    for attempt in attempts:
        attempt.stop(CANCELLED)
    assert all(attempt.error() is CANCELLED for attempt in attempts)
    assert not other.future.done()
    assert stopped_quietly(other)


def stopped_quietly(attempt: Attempt) -> bool:
    attempt.stop(CANCELLED)
    return attempt.error() is CANCELLED


def test_a_cancel_while_the_process_starts_does_it_no_harm(hosts: Hosts) -> None:
    attempt = hosts.start()
    attempt.stop(CANCELLED)
    attempt.future.exception(30)
    started = [held.process for held in hosts.pool.live()]
    result = hosts.run()
    assert {process.pid for process in started} <= {result["pid"]}


def test_a_killed_guard_leaves_nothing_either(hosts: Hosts, of_this_test: str) -> None:
    attempt = hosts.start(ALL_CHILDREN, ["progress", 0, 1], ["sleep_for_ever"])
    attempt.report()
    (held,) = hosts.pool.live()
    guard = psutil.Process(held.process.pid).parent()
    assert guard is not None
    guard.kill()
    error = attempt.error()
    assert str(error).startswith("the executor's process was ended by SIGKILL")
    assert not processes_of(of_this_test)


def test_orphans_are_buried_while_the_host_lives(hosts: Hosts, of_this_test: str) -> None:
    hosts.run(["start", "grandchild"])
    (held,) = hosts.pool.live()
    guard = psutil.Process(held.process.pid).parent()
    assert guard is not None
    orphan = next(child for child in guard.children() if child.pid != held.process.pid)
    orphan.kill()
    psutil.wait_procs([orphan], timeout=WAIT_SEC)
    assert not psutil.pid_exists(orphan.pid)
