"""`mloc resume`, `mloc retry` and `mloc reconcile` as users and scripts see them."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.cli.conftest import Mloc

Spec = Callable[[str], str]

PIPELINE = """
apiVersion: mloc/v1
kind: Workflow
metadata: {name: pipeline}
spec:
  taskType: echo
  stages:
    - {name: one, message: 1}
    - {name: two, message: "${one.no_such_field}"}
    - {name: three, message: 3}
"""


@pytest.fixture
def failed_run(mloc: Mloc, spec: Spec, worker: object) -> str:
    """The id of a run whose second stage failed."""
    run_id = mloc("submit", "-q", spec(PIPELINE.replace("no_such_field", "items[9].output"))).stdout.strip()
    assert mloc("result", "--wait", run_id).returncode == 1
    return run_id


def test_resume_says_what_runs_again(mloc: Mloc, failed_run: str) -> None:
    shown = mloc("resume", failed_run)
    assert shown.stdout.startswith(f"{failed_run}  runs again: two, three; follow it: mloc logs -f ")
    mloc("result", "--wait", failed_run)
    document = json.loads(mloc("resume", "--json", failed_run, "--from", "one").stdout)
    assert (document["id"], document["stages"]) == (failed_run, ["one", "two", "three"])
    mloc("result", "--wait", failed_run)


def test_retry_wants_to_know_what(mloc: Mloc, failed_run: str) -> None:
    assert mloc("retry", failed_run).returncode == 2
    assert json.loads(mloc("retry", "--json", failed_run, "--failed").stdout)["stages"] == ["two", "three"]
    mloc("result", "--wait", failed_run)


def test_what_cannot_be_resumed_is_an_error_with_a_hint(mloc: Mloc, failed_run: str) -> None:
    wrong = mloc("resume", failed_run, "--from", "four")
    assert wrong.returncode == 1
    assert "there is no stage 'four'; the run has one, two, three" in wrong.stderr


@pytest.mark.usefixtures("worker")
def test_reconcile_once_says_that_nothing_is_stranded(mloc: Mloc) -> None:
    assert mloc("reconcile", "--once").stdout == "nothing is stranded\n"
    assert json.loads(mloc("reconcile", "--once", "--json").stdout) == {"runs": []}
    assert mloc("reconcile", "--every", "often").returncode == 2
