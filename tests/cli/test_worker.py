"""`mloc worker`: which celery command it becomes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

import pytest
from typer.testing import CliRunner, Result

from mloc_tasks.settings import reset_settings
from mloc_tasks.worker.hardware import probe
from scheduler.cli.app import app
from scheduler.cli.worker import QUEUES, option_value

Worker = Callable[..., "tuple[Result, list[str]]"]


@pytest.fixture
def worker_command(monkeypatch: pytest.MonkeyPatch) -> Iterator[Worker]:
    """Calls `mloc worker` and gives the result and the command it would become (exec is recorded, not done)."""
    commands: list[list[str]] = []
    monkeypatch.setattr("os.execv", lambda path, command: commands.append(command))

    def call(*arguments: str, **env: str) -> tuple[Result, list[str]]:
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        reset_settings()
        result = CliRunner().invoke(app, ["worker", *arguments])
        return result, commands[-1] if commands else []

    yield call
    monkeypatch.undo()
    reset_settings()


def test_options_are_passed_to_celery_as_they_are(worker_command: Worker) -> None:
    _, command = worker_command("-Q", "ppo,sft", "-c", "3", "-P", "threads", "-n", "fast@%h", LOG_LEVEL="WARNING")
    assert command[:6] == [sys.executable, "-m", "celery", "-A", "mloc_tasks", "worker"]
    assert command[6:] == ["-Q", "ppo,sft", "-c", "3", "-P", "threads", "-n", "fast@%h", "-l", "WARNING"]


def test_task_topics_choose_the_queues_where_no_option_does(worker_command: Worker) -> None:
    _, command = worker_command(TASK_TOPICS="tasks.inference,tasks.ppo")
    assert option_value(command, QUEUES) is None  # the Celery app reads TASK_TOPICS itself


@pytest.mark.skipif(probe().gpus is not None, reason="says what a machine without a GPU serves")
def test_without_either_it_serves_what_the_machine_satisfies_and_says_why_not_the_rest(worker_command: Worker) -> None:
    result, command = worker_command(TASK_TOPICS="")
    assert option_value(command, QUEUES) == "cpu"
    assert "  cpu: served" in result.output
    assert "  ppo: not served: needs 1 x any GPU, has no GPU" in result.output


@pytest.mark.parametrize("arguments", [["-P", "solo"], ["-Psolo"], ["--pool", "solo"], ["--pool=solo"]])
def test_the_solo_pool_is_refused_with_its_reason(worker_command: Worker, arguments: list[str]) -> None:
    result, command = worker_command("-Q", "cpu", *arguments)
    assert (result.exit_code, command) == (1, [])
    assert "delivered again" in result.output
    assert "-P threads" in result.output
