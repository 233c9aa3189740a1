"""The echo executor gives back what it gets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from executor_tasks import task_of

from mloc_tasks.data.items import ItemReader
from mloc_tasks.errors import ExecutionError
from mloc_tasks.executors.echo import EchoExecutor


def test_without_rows_the_message_is_the_result(tmp_path: Path) -> None:
    result = EchoExecutor().run(task_of({"task_type": "echo", "message": "hello"}), tmp_path)
    assert result == {"ok": True, "message": "hello"}
    assert json.loads((tmp_path / "responses.json").read_text()) == result


def test_rows_come_back_as_items_with_indexes_of_the_whole_input(tmp_path: Path) -> None:
    rows = ["one", [{"role": "system", "content": "be brief"}, {"role": "user", "content": "two"}]]
    result = EchoExecutor().run(task_of({"task_type": "echo"}, rows, start=40), tmp_path)
    assert [(item["index"], item["output"]) for item in result["items"]] == [(40, "one"), (41, "two")]
    assert result["items"][1]["input"] == rows[1]
    assert result["usage"]["num_requests"] == 2


def test_message_is_the_output_of_every_row(tmp_path: Path) -> None:
    result = EchoExecutor().run(task_of({"task_type": "echo", "message": "pong"}, ["a", "b"]), tmp_path)
    assert [item["output"] for item in result["items"]] == ["pong", "pong"]


def test_params_are_fields_of_the_result(tmp_path: Path) -> None:
    task = task_of({"task_type": "echo", "message": {"a": 1}, "params": {"rate": 0.5}})
    assert EchoExecutor().run(task, tmp_path) == {"ok": True, "message": {"a": 1}, "rate": 0.5}
    with_rows = task_of({"task_type": "echo", "params": {"rate": 0.5}}, ["a"])
    assert EchoExecutor().run(with_rows, tmp_path)["rate"] == 0.5
    with pytest.raises(ExecutionError, match=r"params\.items"):
        EchoExecutor().run(task_of({"task_type": "echo", "params": {"items": []}}), tmp_path)


def test_shard_writes_item_parts(tmp_path: Path) -> None:
    EchoExecutor().run(task_of({"task_type": "echo"}, ["a", "b"], start=2, parts=True), tmp_path)
    reader = ItemReader(lambda name: (tmp_path / name).open("rb"))
    assert [item["output"] for item in reader.items()] == ["a", "b"]
    assert (tmp_path / "items-00000.jsonl").is_file()
