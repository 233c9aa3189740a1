"""Outputs sent to a web server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mloc_tasks import delivery_http
from mloc_tasks.delivery_http import send
from mloc_tasks.errors import ExecutionError, StoreUnavailableError
from mloc_tasks.spec.model.output import Destination
from tests.outputs.receiver import Receiver, receiving
from tests.outputs.test_addresses import run, train

RESULT = {"ok": True, "steps": 3}


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as found:
        yield found


@pytest.fixture
def out_dir(tmp_path: Path) -> Path:
    files = {"responses.json": json.dumps(RESULT), "final_model/config.json": "{}", "final_model.tar.gz": "packed"}
    for name, text in {**files, "events/a b.log": "lines", "metrics.jsonl": '{"step": 1}\n'}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def deliver(out_dir: Path, url: str, **more: Any) -> None:
    send(out_dir, Destination.model_validate({"type": "http", "url": url, **more}), run_id="run-1", stage="train")


def test_files_go_as_forms_and_the_result_comes_last(out_dir: Path, receiver: Receiver) -> None:
    deliver(out_dir, receiver.url, headers={"Authorization": "Bearer dev-token"})
    *files, last = receiver.requests
    assert {each.path for each in files} == {"/api/v1/results/run-1/files"}
    assert {each.headers["Authorization"] for each in receiver.requests} == {"Bearer dev-token"}
    assert {(form["stage"], form["name"], form["file"]) for form in (each.form for each in files)} == {
        (b"train", b"events/a b.log", b"lines"),
        (b"train", b"final_model.tar.gz", b"packed"),
        (b"train", b"metrics.jsonl", b'{"step": 1}\n'),
    }
    assert (last.method, last.path) == ("POST", "/api/v1/results")
    assert json.loads(last.body) == {"task_id": "run-1", "stage": "train", "result": RESULT}


def test_put_keeps_files_by_path_below_the_address(out_dir: Path, receiver: Receiver) -> None:
    deliver(out_dir, f"{receiver.url}/?key=1", method="PUT")
    assert [(each.method, each.path, each.body) for each in receiver.requests] == [
        ("PUT", "/api/v1/results/run-1/train/events/a%20b.log?key=1", b"lines"),
        ("PUT", "/api/v1/results/run-1/train/final_model.tar.gz?key=1", b"packed"),
        ("PUT", "/api/v1/results/run-1/train/metrics.jsonl?key=1", b'{"step": 1}\n'),
        ("PUT", "/api/v1/results/run-1/train/responses.json?key=1", json.dumps(RESULT).encode()),
    ]


def test_a_busy_server_is_asked_again_and_gets_the_whole_file(
    out_dir: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery_http, "BACKOFF_SEC", 0.0)
    receiver.statuses.extend([503, 429])
    deliver(out_dir, receiver.url)
    first, second, third, *_ = receiver.requests
    assert first.form == second.form == third.form
    assert len(receiver.requests) == 6


def test_a_server_that_stays_away_is_an_error_that_another_attempt_may_not_meet(
    out_dir: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery_http, "BACKOFF_SEC", 0.0)
    receiver.statuses.extend([503] * delivery_http.TRIES)
    with pytest.raises(StoreUnavailableError, match="503 Service Unavailable: said"):
        deliver(out_dir, receiver.url)
    with pytest.raises(StoreUnavailableError, match="onnection refused"):
        deliver(out_dir, "http://127.0.0.1:9/results")


@pytest.mark.parametrize(
    ("status", "hint"),
    [(401, "headers"), (307, "moved to http://elsewhere.example/x;"), (302, "moved"), (413, "Results and artifacts")],
)
def test_a_refusal_is_final_and_says_what_to_do(out_dir: Path, receiver: Receiver, status: int, hint: str) -> None:
    receiver.statuses.append(status)
    with pytest.raises(ExecutionError) as refused:
        deliver(out_dir, f"{receiver.url}?token=secret")
    assert hint in refused.value.hint
    assert "secret" not in f"{refused.value}{refused.value.hint}"
    assert f": {status}" in str(refused.value)
    assert len(receiver.requests) == 1


@pytest.mark.usefixtures("store_url")
def test_a_training_sends_its_final_model_as_an_archive(receiver: Receiver) -> None:
    output = {"destination": {"type": "http", "url": receiver.url}}
    cached = {"cache": {"enabled": True}, "steps": 2}
    done = run(train(full=True, **cached, output=output))
    again = run(train(full=True, **cached, output=output))
    sent = [each.form["name"].decode() for each in receiver.requests if each.path.endswith(f"{done.id}/files")]
    assert sent == ["final_lora.tar.gz", "final_model.tar.gz", "metrics.jsonl"]
    results = [json.loads(each.body) for each in receiver.requests if not each.path.endswith("/files")]
    assert [each["task_id"] for each in results] == [done.id, again.id]
    assert results[0]["result"] == results[1]["result"] == done.result()
    assert done.result()["final_model_archive_url"].endswith("/final_model.tar.gz")
