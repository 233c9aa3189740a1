"""How many rows an engine says that it batches, by which its worker takes shards for it."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from executor_tasks import task_of

from mloc_tasks.executors.vllm import VllmExecutor, executor


@pytest.mark.parametrize(("n", "rows"), [(None, 256), (1, 256), (8, 32), (300, 1)])
def test_an_engine_that_samples_each_row_often_takes_fewer_of_them(
    n: int | None, rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reported: list[int | None] = []
    stub = VllmExecutor()  # its engine is not loaded: only its batch matters
    engine = SimpleNamespace(batch=256, dead=False)
    monkeypatch.setattr(stub, "_model", lambda task: SimpleNamespace(engine=engine))

    def answer(*_: Any) -> dict[str, Any]:
        reported.append(stub.rows_at_once)
        return {}

    monkeypatch.setattr(executor, "_answer", answer)
    inference = {} if n is None else {"n": n, "temperature": 1.0}
    stub.run(task_of({"task_type": "inference", "inference": inference}, ["Hello"]), tmp_path)
    assert reported == [rows]
