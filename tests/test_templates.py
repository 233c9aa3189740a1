"""Every template compiles; those that can run here do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from mloc_tasks.executors.registry import missing_reason
from mloc_tasks.executors.vllm.availability import fits
from mloc_tasks.queues import load_queues
from mloc_tasks.settings import Settings
from scheduler import submit_yaml
from scheduler.plan import make_plan
from scheduler.submit import read_spec

ROOT = Path(__file__).parents[1]
TEMPLATES = sorted((ROOT / "templates").glob("*.yaml"))
NAMES = [path.stem for path in TEMPLATES]
WAIT_SEC = 600
STEPS = 2
TRAINING_SEC = 1800


BATCH_SIZES = {"ppo": 4, "grpo": 4}  # of two rows otherwise; GRPO's holds a prompt's four answers


def shortened(name: str) -> dict[str, Any]:
    """A template whose trainings end after `STEPS` small steps: what it is wired to do, without the minutes."""
    document: dict[str, Any] = yaml.safe_load((ROOT / "templates" / f"{name}.yaml").read_text())
    for part in (document["spec"], *document["spec"].get("stages", ())):
        if "training" in part:
            part["training"].pop("num_train_epochs", None)
            part["training"] |= {"steps": STEPS, "batch_size": BATCH_SIZES.get(part["taskType"], 2)}
    return document


@pytest.mark.parametrize("path", TEMPLATES, ids=NAMES)
def test_it_compiles_without_a_warning(path: Path) -> None:
    workflow, _ = read_spec(path, Settings())
    plan = make_plan(workflow, load_queues())
    assert plan.stages
    assert workflow.warnings == ()


@pytest.mark.parametrize("path", TEMPLATES, ids=NAMES)
def test_it_begins_with_what_it_is_and_how_to_run_it(path: Path) -> None:
    comment = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert len(comment) >= 2
    assert f"templates/{path.name}" in "".join(comment)


@pytest.mark.parametrize(
    ("name", "example"), [("inference_vllm_mistral", "InferenceTask"), ("ppo_training_mistral", "TrainingTask")]
)
def test_the_first_documentation_s_examples_are_there(name: str, example: str) -> None:
    document = yaml.safe_load((ROOT / "templates" / f"{name}.yaml").read_text())
    assert document["kind"] == example
    workflow, _ = read_spec(ROOT / "templates" / f"{name}.yaml", Settings())
    assert missing_reason(workflow.stages[0].spec.task_type, workflow.stages[0].document) is None


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize(("name", "said"), [("echo", "MLOC works."), ("dag", "a red cherry, one of 4 colors")])
def test_a_template_without_model_runs(name: str, said: str) -> None:
    run = submit_yaml(ROOT / "templates" / f"{name}.yaml")
    assert run.result(timeout=WAIT_SEC)["message"] == said


@pytest.mark.model
@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize(
    ("name", "rows", "said"),
    [("quickstart", 8, "Paris"), ("inference_sharded", 10, "Madrid"), ("inference", 2, " ")],
)
def test_a_template_runs_on_the_real_model(
    name: str, rows: int, said: str, monkeypatch: pytest.MonkeyPatch, results_dir: Path
) -> None:
    run = submit_yaml(ROOT / "templates" / f"{name}.yaml")
    result = run.result(timeout=WAIT_SEC)
    assert len(result["items"]) == rows
    assert said in result["items"][0]["output"]
    assert result["usage"]["completion_tokens"] > rows


@pytest.mark.model
@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize("name", ["sft", "lora-sft", "dpo", "reward", "grpo", "sft-continue"])
def test_a_template_trains_the_real_model(name: str) -> None:
    pytest.importorskip("trl")
    result = submit_yaml(shortened(name)).result(timeout=TRAINING_SEC)
    assert result["ok"]
    assert result["steps"] == STEPS
    assert result.keys() & {"final_model_url", "final_lora_url"}


@pytest.mark.model
@pytest.mark.usefixtures("worker")
def test_the_ppo_template_moves_the_real_model_away_from_its_reference() -> None:
    pytest.importorskip("vaderSentiment")
    run = submit_yaml(shortened("ppo"))
    result = run.result(timeout=TRAINING_SEC)
    assert result["ok"]
    assert result["steps"] == STEPS
    with run.open("ppo/metrics.jsonl") as lines:
        first, second = (json.loads(line) for line in lines)
    assert first["kl"] == pytest.approx(0, abs=0.02)
    assert second["kl"] > 0.01
    assert all(-1 <= each["mean_reward"] <= 1 for each in (first, second))
    assert result["performance"]["tokens_per_sec"] > 0
    assert "final_lora_url" in result


@pytest.mark.model
@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize(("name", "rows"), [("sft-dpo-evaluate", 6), ("reward-ppo-inference", 10)])
def test_what_a_template_trains_answers_in_a_later_stage(name: str, rows: int) -> None:
    pytest.importorskip("trl")
    result = submit_yaml(shortened(name)).result(timeout=TRAINING_SEC)
    assert result["ok"]
    assert len(result["items"]) == rows


@pytest.mark.model
@pytest.mark.usefixtures("worker")
@pytest.mark.skipif(not fits(), reason="the CPU build of vLLM is not installed: these stages ask for no GPU")
def test_an_adapter_that_a_template_trains_is_loaded_by_vllm() -> None:
    pytest.importorskip("trl")
    result = submit_yaml(shortened("lora-sft-vllm")).result(timeout=TRAINING_SEC)
    assert len(result["items"]) == 10
    assert all(item["output"] for item in result["items"])


@pytest.mark.model
@pytest.mark.usefixtures("worker")
@pytest.mark.skipif(not fits(), reason="the CPU build of vLLM is not installed: these stages ask for no GPU")
@pytest.mark.parametrize(
    ("name", "rows"),
    [("vllm-single", 2), ("vllm-sharded", 10), ("vllm-structured", 2), ("vllm-steps", 2), ("vllm-dag", 2)],
)
def test_a_template_runs_on_vllm(name: str, rows: int) -> None:
    result = submit_yaml(ROOT / "templates" / f"{name}.yaml").result(timeout=WAIT_SEC)
    assert len(result["items"]) == rows
    assert all(item["output"] for item in result["items"])
