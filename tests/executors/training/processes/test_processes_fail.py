"""One of a training's two processes fails: that is the attempt's error, and the other does not wait for it."""

from __future__ import annotations

import time
from typing import Any

import psutil
import pytest
from troupe import begin, pids

from mloc_tasks.errors import (
    AttemptCancelledError,
    ConfigError,
    ExecutionError,
    HostCrashedError,
    MlocError,
    ModelUnavailableError,
)
from tests.host.conftest import Attempt, Hosts, StartPool, processes_of
from tests.waiting import wait_until

ENDED_SEC = 25.0  # on a busy machine; collectives wait half an hour


def failed(hosts: Hosts, attempt: Attempt) -> MlocError:
    """How it failed, soon after both had begun."""
    attempt.report()
    (hosts.folder / "gate").touch()
    begun = time.monotonic()
    error = attempt.error()
    assert time.monotonic() - begun < ENDED_SEC
    assert isinstance(error, MlocError)
    return error


def waiting(hosts: Hosts) -> list[list[Any]]:
    """Process 0 waits for the other, in an exchange that will never be; that goes on when process 0 was heard of."""
    gate = str(hosts.folder / "gate")
    return [["all", "tell_pid"], ["all", "meet"], [0, "progress", 0, 1], [0, "add_up", 1], [1, "wait_for", gate]]


@pytest.mark.parametrize("kind", [ExecutionError, ModelUnavailableError])
def test_an_error_of_any_process_is_the_attempts(hosts: Hosts, of_this_test: str, kind: type[MlocError]) -> None:
    attempt = begin(hosts, *waiting(hosts), [1, "raise", kind.__name__, "it did not work"])
    error = failed(hosts, attempt)
    assert type(error) is kind
    assert (str(error), error.hint, error.retryable) == ("it did not work", "do this", kind.retryable)
    assert not processes_of(of_this_test)


def test_one_that_is_not_ours_comes_with_its_traceback(hosts: Hosts) -> None:
    attempt = begin(hosts, *waiting(hosts), [1, "raise", "ValueError", "it did not work"])
    error = failed(hosts, attempt)
    assert isinstance(error, ExecutionError)
    assert (str(error), error.kind, error.retryable) == ("ValueError: it did not work", "ValueError", False)
    assert any("in do_raise" in line for line in attempt.log)
    assert any("process 1 (of 0 to 1) failed" in line for line in attempt.log)


def test_the_first_process_can_be_the_one_that_fails(hosts: Hosts) -> None:
    attempt = begin(
        hosts,
        *waiting(hosts)[1:3],
        [0, "wait_for", str(hosts.folder / "gate")],
        [0, "raise", "ValueError", "no"],
        [1, "add_up", 1],
    )
    assert str(failed(hosts, attempt)) == "ValueError: no"


def test_a_killed_process_is_told_of_with_its_last_words(hosts: Hosts, of_this_test: str) -> None:
    attempt = begin(hosts, *waiting(hosts), [1, "print", "its last words\n"], [1, "kill", "SIGKILL"])
    error = failed(hosts, attempt)
    assert isinstance(error, HostCrashedError)
    how = "was ended by SIGKILL, perhaps by the kernel for want of memory"
    assert str(error) == f"process 1 of the training's 2 {how} in the middle of it"
    assert error.retryable
    assert "want of memory" in error.hint
    assert "[process 1] its last words" in "\n".join(attempt.log)
    assert not processes_of(of_this_test)


def test_leaving_by_sys_exit_is_an_error(hosts: Hosts) -> None:
    error = failed(hosts, begin(hosts, *waiting(hosts), [1, "exit", 0]))
    assert str(error) == "the executor ended its process by sys.exit(0)"
    assert not error.retryable


def test_one_that_leaves_without_a_word_too(hosts: Hosts) -> None:
    error = failed(hosts, begin(hosts, *waiting(hosts), [1, "end", 0]))
    assert str(error) == "process 1 of the training's 2 ended in the middle of it"


def test_a_process_that_hears_nothing_is_ended_with_the_others(hosts: Hosts, of_this_test: str) -> None:
    attempt = begin(
        hosts,
        *(["all", "ignore_sigterm"], ["all", "meet"], [0, "progress", 0, 1]),
        *([1, "wait_for", str(hosts.folder / "gate")], [1, "raise", "ExecutionError", "no"], [0, "sleep_for_ever"]),
    )
    assert str(failed(hosts, attempt)) == "no"
    assert not processes_of(of_this_test)


def test_a_module_that_is_missing_says_where_and_what_to_do(hosts: Hosts) -> None:
    error = failed(hosts, begin(hosts, *waiting(hosts), [1, "import", "absent_module"]))
    assert isinstance(error, ConfigError)
    assert "No module named 'absent_module'" in str(error)


def test_a_cancel_ends_all(hosts: Hosts, of_this_test: str) -> None:
    attempt = begin(hosts, *waiting(hosts))
    attempt.report()
    cancelled = AttemptCancelledError("the run was cancelled")
    attempt.stop(cancelled)
    assert attempt.error() is cancelled
    assert not processes_of(of_this_test)


def test_a_killed_host_leaves_nobody(hosts: Hosts, of_this_test: str) -> None:
    attempt = begin(hosts, [1, "start", "own session"], *waiting(hosts))
    attempt.report()
    (held,) = hosts.pool.live()
    assert {child.pid for child in psutil.Process(held.process.pid).children()} == set(pids(attempt))
    psutil.Process(held.process.pid).kill()
    assert isinstance(attempt.error(), HostCrashedError)
    wait_until(lambda: not processes_of(of_this_test))


def test_more_processes_than_gpus_are_refused(pool: StartPool) -> None:
    hosts = pool(gpus=("0", "1"))
    error = begin(hosts, ["all", "meet"], training={"nproc_per_node": 3}, gpus=2).error()
    assert str(error) == "training.nproc_per_node asks for 3 processes, and the stage has 2 GPUs"
    assert isinstance(error, ExecutionError)
    assert "resources.hardware.gpu.count: 3" in error.hint
