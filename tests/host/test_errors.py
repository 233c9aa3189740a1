"""How an executor's failure reaches the attempt."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from mloc_tasks.errors import (
    ConfigError,
    ExecutionError,
    HostCrashedError,
    MlocError,
    ModelUnavailableError,
    RetryableExecutionError,
)
from tests.host.conftest import Hosts
from tests.plugins.mloc_test_script import ChorusExecutor, ScriptExecutor


def failure(hosts: Hosts, *do: list[Any], **options: Any) -> MlocError:
    error = hosts.start(*do, **options).error()
    assert isinstance(error, MlocError)
    return error


@pytest.mark.parametrize("kind", [ExecutionError, RetryableExecutionError, ModelUnavailableError, ConfigError])
def test_our_errors_arrive_as_they_were_raised(hosts: Hosts, kind: type[MlocError]) -> None:
    error = failure(hosts, ["raise", kind.__name__, "it did not work"])
    assert type(error) is kind
    assert (str(error), error.hint, error.retryable) == ("it did not work", "do this", kind.retryable)


@pytest.mark.parametrize("kind", ["ValueError", "MemoryError", "ConnectionError"])
def test_any_other_carries_its_class_and_its_traceback(hosts: Hosts, kind: str) -> None:
    attempt = hosts.start(["warn", "about to fail"], ["raise", kind, "it did not work"])
    error = attempt.error()
    assert isinstance(error, ExecutionError)
    assert (str(error), error.kind) == (f"{kind}: it did not work", kind)
    assert error.retryable == (kind != "ValueError")
    log = "\n".join(attempt.log)
    assert "about to fail" in log
    assert "in do_raise" in log


def test_a_failure_leaves_the_host_warm(hosts: Hosts) -> None:
    hosts.start(["raise", "ValueError", "no"]).error()
    hosts.start(["exit", 1]).error()
    assert hosts.run()["before"] == 2


def test_what_a_worker_alone_can_know_is_not_believed(hosts: Hosts) -> None:
    error = failure(hosts, ["raise", "StaleAttemptError", "made up"])
    assert type(error) is ExecutionError
    assert (error.kind, str(error)) == ("StaleAttemptError", "made up")


def test_an_error_that_cannot_say_what_it_is_is_one_all_the_same(hosts: Hosts) -> None:
    assert str(failure(hosts, ["raise_mute"])) == "MuteError: (its message cannot be read: RuntimeError)"


def test_a_full_disk_is_told_as_one(hosts: Hosts) -> None:
    error = hosts.start(["raise_disk_full"]).error()
    assert isinstance(error, OSError)
    assert error.errno == errno.ENOSPC


def test_leaving_by_sys_exit_is_an_error(hosts: Hosts) -> None:
    error = failure(hosts, ["exit", 3])
    assert str(error) == "the executor ended its process by sys.exit(3)"
    assert not error.retryable


@pytest.mark.parametrize("executor", [ScriptExecutor, ChorusExecutor])
@pytest.mark.parametrize(
    ("step", "how"),
    [
        (["end", 3], "ended with exit code 3"),
        (["end", 0], "ended"),
        (["kill", "SIGKILL"], "was ended by SIGKILL, perhaps by the kernel for want of memory"),
        (["segfault"], "was ended by SIGSEGV"),
    ],
)
def test_a_process_that_ends_is_a_failed_attempt_with_its_last_words(
    hosts: Hosts, executor: type[ScriptExecutor], step: list[Any], how: str
) -> None:
    attempt = hosts.start(["print", "its last words"], step, executor=executor)
    error = attempt.error()
    assert isinstance(error, HostCrashedError)
    assert str(error) == f"the executor's process {how} in the middle of a task"
    assert error.retryable
    assert ("want of memory" in error.hint) == (step == ["kill", "SIGKILL"])
    assert any(("do_segfault" if step == ["segfault"] else "its last words") in line for line in attempt.log)
    assert hosts.run(executor=executor)["before"] == 0


def test_a_broken_executor_gets_a_new_process(hosts: Hosts) -> None:
    bystander = hosts.start(["progress", 0, 1], ["wait_until_cancelled"], executor=ChorusExecutor)
    bystander.report()
    error = failure(hosts, ["break"], executor=ChorusExecutor)
    assert str(error) == "the engine is dead"
    assert str(bystander.error()) == (
        "the executor's process was ended, because it was broken: the engine is dead in the middle of a task"
    )
    assert hosts.run(executor=ChorusExecutor)["before"] == 0


def test_an_executor_that_cannot_be_imported_is_a_permanent_failure(
    hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ScriptExecutor, "__module__", "absent_module")
    error = failure(hosts)
    assert isinstance(error, ConfigError)
    assert "ModuleNotFoundError: No module named 'absent_module'" in str(error)
    assert "mloc doctor" in error.hint
