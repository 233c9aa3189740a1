"""PPO through a worker: the first documentation's example."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("peft")

from scheduler import submit_yaml
from tests.executors.ppo.reward_models import save_classifier
from tests.executors.training.tiny_model import make_tiny_model

pytestmark = pytest.mark.model

ROOT = Path(__file__).parents[2]
WAIT_SEC = 1200


def metrics_of(result: dict[str, Any]) -> list[dict[str, Any]]:
    lines = Path(urlsplit(result["metrics_url"]).path).read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.usefixtures("worker")
def test_the_first_documentation_s_example_runs_with_models_that_are_here(tmp_path: Path) -> None:
    model = make_tiny_model(tmp_path / "model")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 1024}))
    sentiment = save_classifier(tmp_path / "sentiment", labels=("negative", "neutral", "positive"))
    document = yaml.safe_load((ROOT / "templates" / "ppo_training_mistral.yaml").read_text())
    document["spec"]["model"]["source"] = {"type": "local", "identifier": str(model)}
    document["spec"]["reward_model"]["identifier"] = str(sentiment)
    document["spec"]["resources"]["hardware"] = {}  # no GPU, and not 64 GiB
    run = submit_yaml(document)
    result = run.result(timeout=WAIT_SEC)
    assert result["ok"]
    assert result["steps"] == 50
    steps = metrics_of(result)
    assert [each["step"] for each in steps] == list(range(50))
    assert all(-1 <= each["mean_reward"] <= 1 for each in steps)
    assert steps[0]["kl"] == pytest.approx(0, abs=1e-3)
    said = [event.data.get("message", "") for event in run.events(follow=False)]
    assert any(line.startswith(f"PPO Step 0/50: mean_reward={steps[0]['mean_reward']:.4f}") for line in said)
