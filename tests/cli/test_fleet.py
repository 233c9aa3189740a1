"""Runs on a real broker and worker, from submit to fetch, as users and scripts see them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Mloc
from tests.cli.documents import DIAMOND, ECHO

Spec = Callable[[str], str]
ABSENT = {"REDIS_URL": "redis://user:secret@localhost:1/0"}
WAITING_QUEUE = ECHO + "  resources: {hardware: {gpu: {type: a100, count: 8}}, tags: [nvlink]}\n"


@pytest.fixture
def done_run(mloc: Mloc, spec: Spec, worker: object) -> str:
    """The id of an echo run that is over."""
    run_id = mloc("submit", "-q", spec(ECHO)).stdout.strip()
    assert mloc("result", "--wait", run_id).returncode == 0
    return run_id


@pytest.mark.usefixtures("valkey")
def test_quiet_submit_prints_the_id_alone_and_the_rest_takes_its_beginning(mloc: Mloc, done_run: str) -> None:
    assert len(done_run) == 36
    status = json.loads(mloc("status", "--json", done_run[:13]).stdout)
    assert (status["id"], status["state"], status["owner"]) == (done_run, "done", "alice")
    assert status["stages"][0]["shards"] == 2


def test_result_shows_the_answers_and_as_json_the_document(mloc: Mloc, done_run: str) -> None:
    assert "  3  three\n" in mloc("result", done_run).stdout
    document = json.loads(mloc("result", "--json", done_run).stdout)
    assert [item["output"] for item in document["items"]] == ["one", "two", "three", "four"]


def test_fetch_brings_the_files_that_match(mloc: Mloc, done_run: str, tmp_path: Path) -> None:
    fetched = mloc("fetch", done_run, "out", "echo/resp*")
    assert fetched.stdout.splitlines() == ["out/echo/responses.json"]
    assert json.loads((tmp_path / "out/echo/responses.json").read_text())["ok"] is True
    missing = mloc("fetch", done_run, "out", "nothing*")
    assert missing.returncode == 1
    assert "it has echo/" in missing.stderr


def test_logs_end_with_the_run_and_as_json_are_an_object_a_line(mloc: Mloc, done_run: str) -> None:
    assert mloc("logs", "-f", done_run).stdout.splitlines()[-1].endswith("run: done")
    events = [json.loads(line) for line in mloc("logs", "--json", "--stage", "echo", done_run).stdout.splitlines()]
    assert {event["stage"] for event in events} == {"echo"}


def test_list_filters_by_owner_label_and_state(mloc: Mloc, spec: Spec, done_run: str) -> None:
    other = mloc("submit", "-q", spec(DIAMOND)).stdout.strip()

    def listed(*options: str) -> set[str]:
        return {run["id"] for run in json.loads(mloc("list", "--json", *options).stdout)["runs"]}

    assert {other, done_run} <= listed()
    assert other not in listed("--owner", "alice")
    assert done_run in listed("--label", "team=search", "--state", "done")
    assert listed("--label", "team=nobody") == set()
    assert listed("--limit", "1") == {other}
    assert mloc("status", "last").stdout.startswith(other)


@pytest.mark.usefixtures("done_run")
def test_workers_and_queues_show_who_is_there(mloc: Mloc) -> None:
    workers = json.loads(mloc("workers", "--json").stdout)["workers"]
    assert "cpu" in workers[0]["queues"]
    queues = {queue["name"]: queue for queue in json.loads(mloc("queues", "--json").stdout)["queues"]}
    assert queues["cpu"]["consumers"] == 2
    assert "slots" in mloc("queues").stdout.lower()


def test_a_run_that_no_worker_takes_waits_aloud_and_can_be_cancelled(mloc: Mloc, spec: Spec, worker: object) -> None:
    submitted = mloc("submit", spec(WAITING_QUEUE))
    assert submitted.returncode == 0
    run_id = submitted.stdout.split()[0]
    assert "no worker serves queue a100-80gb-x8; start one with: celery -A mloc_tasks worker -Q" in submitted.stderr
    assert "waiting: no worker serves queue" in mloc("status", run_id).stdout
    early = mloc("result", run_id)
    assert early.returncode == 1
    assert "has no result yet" in early.stderr
    assert json.loads(mloc("cancel", "--json", run_id).stdout)["state"] == "cancelled"
    assert "is cancelled already" in mloc("cancel", run_id).stdout
    assert "was cancelled" in mloc("result", run_id).stderr


@pytest.mark.usefixtures("valkey")
def test_an_unknown_run_is_an_error_with_a_hint(mloc: Mloc) -> None:
    done = mloc("status", "ffffffff-none")
    assert done.returncode == 1
    assert "no run begins with 'ffffffff-none'" in done.stderr
    assert "mloc list" in done.stderr


@pytest.mark.usefixtures("valkey")
def test_nothing_is_submitted_when_one_of_several_specs_is_bad(mloc: Mloc, spec: Callable[..., str]) -> None:
    before = mloc("list", "--json").stdout
    done = mloc("submit", spec(ECHO), spec("apiVersion: mloc/v2\n", "bad.yaml"))
    assert done.returncode == 2
    assert "bad.yaml:1:1: error: apiVersion:" in done.stderr
    assert mloc("list", "--json").stdout == before


@pytest.mark.parametrize("command", [["list"], ["submit", "spec.yaml"]])
def test_a_broker_that_is_down_is_told_without_traceback_or_password(
    mloc_process: Mloc, spec: Spec, command: list[str]
) -> None:
    spec(ECHO)
    done = mloc_process(*command, env=ABSENT)
    assert done.returncode == 1
    assert "error: Redis at redis://user:***@localhost:1/0 cannot be reached" in done.stderr
    assert "hint: start it" in done.stderr
    assert "secret" not in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


def test_queues_are_shown_also_without_a_broker(mloc: Mloc) -> None:
    done = mloc("queues", "--json", env=ABSENT)
    assert done.returncode == 0
    assert json.loads(done.stdout)["queues"][0]["consumers"] is None
    assert "warning: workers and backlog are unknown" in done.stderr


@pytest.mark.usefixtures("valkey")
def test_doctor_finds_all_well_with_a_broker(mloc: Mloc) -> None:
    done = mloc("doctor", "--json")
    report = json.loads(done.stdout)
    assert (done.returncode, report["ok"]) == (0, True)
    assert "Valkey" in next(check["found"] for check in report["checks"] if check["what"] == "broker")


def test_doctor_says_what_to_do_without_one(mloc: Mloc) -> None:
    done = mloc("doctor", env=ABSENT)
    assert done.returncode == 1
    assert "-> start it (redis-server), or set REDIS_URL" in done.stdout
    assert "secret" not in done.stdout


def test_doctor_lists_every_setting_with_passwords_masked_even_where_one_is_wrong(mloc: Mloc) -> None:
    done = mloc("doctor", "--settings", env={**ABSENT, "HEARTBEAT_INTERVAL_SEC": "soon"})
    assert done.returncode == 1
    assert "redis://user:***@localhost:1/0" in done.stdout
    assert "MLOC_RETENTION_DAYS" in done.stdout
    assert "HEARTBEAT_INTERVAL_SEC='soon'" in done.stderr
