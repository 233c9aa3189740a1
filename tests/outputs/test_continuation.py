"""A training that goes on from what another one made, the archive of its final model, on whatever worker."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mloc_tasks.ledger import State
from scheduler import Run, submit_yaml
from tests.executors.training.tiny_model import make_tiny_model

WAIT_SEC = 600
ROWS = [{"prompt": f"say {letter}", "completion": letter * 3} for letter in "abcdefgh"]


def trains(name: str, rows: Path, task_type: str, *, steps: int, **more: Any) -> dict[str, Any]:
    training = {"steps": steps, "batch_size": 8, "learning_rate": 0.003}
    return {
        "name": name,
        "taskType": task_type,
        "data": {"type": "file", "url": str(rows), "format": "jsonl"},
        "training": training,
        **more,
    }


def losses(run: Run, stage: str) -> list[float]:
    with run.open(f"{stage}/metrics.jsonl") as lines:
        return [json.loads(line)["loss"] for line in lines]


@pytest.mark.parametrize("store_url", ["s3"], indirect=True)
def test_a_second_training_begins_with_the_archive_of_the_first_ones_model(store_url: str, tmp_path: Path) -> None:
    model = make_tiny_model(tmp_path / "model")
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    source = {"source": {"type": "local", "identifier": str(model)}}
    stages = [
        trains("first", rows, "lora_sft", steps=20, model=source, lora={"r": 16}),
        trains("second", rows, "sft", steps=1, checkpoint={"load": {"url": "${first.result.final_model_archive_url}"}}),
    ]
    document = {"apiVersion": "mloc/v1", "kind": "Workflow", "metadata": {"name": "continuation"}}
    run = submit_yaml({**document, "spec": {"stages": stages}})
    assert run.wait(WAIT_SEC) is State.DONE, run.status().run.error
    first, second = run.result("first"), run.result("second")
    prefix = f"{store_url}/{run.id}/first/0/1"
    assert first["final_model_archive_url"] == f"{prefix}/final_model.tar.gz"
    assert first["final_lora_url"] == f"{prefix}/final_lora"
    assert second["final_model_url"] == f"{store_url}/{run.id}/second/0/1/final_model"
    assert "final_model_archive_url" not in second
    before, after = losses(run, "first"), losses(run, "second")
    assert before[-1] < before[0] - 0.1
    assert after == [pytest.approx(before[-1], abs=0.02)]
    names = {artifact.name for artifact in run.artifacts()}
    assert {"first/curves.png", "first/curves.svg", "first/metrics.jsonl", "first/final_model/config.json"} <= names
