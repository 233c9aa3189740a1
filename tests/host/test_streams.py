"""What comes and goes while a task runs: reports, output, inputs, of any size."""

from __future__ import annotations

import json
import logging

import pytest

from mloc_tasks.errors import BrokerError
from mloc_tasks.host.output import LINE_BYTES, lines
from tests.host.conftest import Hosts
from tests.plugins.mloc_test_script import ChorusExecutor
from tests.waiting import wait_until

LARGE = "ü" * 3_000_000


def test_reports_and_output_come_while_the_task_runs(hosts: Hosts) -> None:
    gate = hosts.folder / "gate"
    attempt = hosts.start(
        ["progress", 1, 2],
        ["log", "half done"],
        ["metrics", 7, {"loss": 0.5}],
        ["print", "a line\n"],
        ["wait_for", str(gate)],
    )
    assert [attempt.report() for _ in range(3)] == [
        ("progress", 1, 2),
        ("log", "half done", "warning"),
        ("metrics", 7, {"loss": 0.5}),
    ]
    wait_until(lambda: "a line" in attempt.log)
    assert not attempt.future.done()
    gate.touch()
    assert attempt.result()["ok"]


def test_the_output_of_a_concurrent_host_is_logged(hosts: Hosts, caplog: pytest.LogCaptureFixture) -> None:
    hosts.run(["print", "a line\n"], executor=ChorusExecutor)
    wait_until(lambda: "a line" in caplog.text)


def test_a_quiet_worker_shows_the_last_lines_of_what_failed(hosts: Hosts, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    attempt = hosts.start(["print", "a line\n"], ["raise", "ValueError", "no"])
    attempt.error()
    assert "a line" in attempt.log


def test_much_output_and_large_frames_block_nothing(hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mloc_tasks.host.process.MOST_WAITING", 1_000_000)  # more than what is printed
    attempt = hosts.start(["print_much", 10], ["log", LARGE], ["raise", "ValueError", "the end"], extra=LARGE)
    assert attempt.report() == ("log", LARGE, "warning")
    assert "ValueError: the end" in str(attempt.error())
    assert attempt.log[-1].startswith("ValueError")


def test_a_report_that_is_lost_with_the_broker_ends_nothing(hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise BrokerError("Redis is away")

    monkeypatch.setattr("tests.host.conftest.Attempt.progress", fail)
    assert hosts.run(["progress", 1, 2])["ok"]


def test_a_report_that_is_refused_ends_the_task(hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise LookupError("no such run")

    monkeypatch.setattr("tests.host.conftest.Attempt.progress", fail)
    attempt = hosts.start(["progress", 1, 2], ["sleep_for_ever"])
    assert str(attempt.error()) == "no such run"
    assert not hosts.pool.live()


def test_rows_reach_the_executor(hosts: Hosts) -> None:
    rows = ["one", [{"role": "user", "content": "two"}]]
    file = hosts.folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = hosts.run(["inputs"], ["inputs"], rows={"path": str(file), "start": 5, "count": 2})
    assert result["inputs"] == sum(len(str(row)) for row in rows)


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        ([b"one\ntw", b"o\n\n  \nthree"], ["one", "two", "three"]),
        ([b"\r 10%", b"\r 50%\r", b"\r100%\nnext\r\n"], ["100%", "next"]),
        ([b"\r 10%", b"\r 50%"], [" 50%"]),
        ([b"x" * 10_000, b"y" * 10_000 + b"\n", b"z\n"], ["x" * LINE_BYTES, "z"]),
        ([b"\xff\xfe\n"], ["��"]),
    ],
)
def test_output_is_read_as_lines(pieces: list[bytes], expected: list[str]) -> None:
    given = iter([*pieces, b""])
    assert list(lines(lambda: next(given))) == expected
