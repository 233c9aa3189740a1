from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mloc_tasks.executors.base import Task
from mloc_tasks.executors.trl import DpoExecutor, SftExecutor
from tests.executors.training.tiny_model import make_tiny_model
from tests.executors.training.training_tasks import PREFERENCES, heard, training_task

pytest.importorskip("trl")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"))


def run(task: Task, out_dir: Path) -> dict[str, Any]:
    out_dir.mkdir(exist_ok=True)
    return DpoExecutor().run(task, out_dir)


def measured(out_dir: Path, name: str) -> list[float]:
    return [json.loads(line)[name] for line in (out_dir / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("more", [{}, {"lora": {"r": 8}}], ids=["full", "lora"])
def test_the_better_answer_becomes_the_likelier_one(more: dict[str, Any], model: Path, tmp_path: Path) -> None:
    task = training_task(model, PREFERENCES, task_type="dpo", training={"steps": 12, "batch_size": 4}, **more)
    result = run(task, tmp_path)
    assert measured(tmp_path, "loss")[0] == pytest.approx(0.6931, abs=1e-4)  # ln 2: nothing differs from the reference
    assert result["metrics"]["rewards/margins"] > 0.2
    assert result["metrics"]["rewards/accuracies"] == 1.0
    assert (tmp_path / ("final_lora" if more else "final_model")).is_dir()


def test_the_reference_is_the_model_that_the_stage_starts_from(model: Path, tmp_path: Path) -> None:
    """Also where an adapter was merged into it, which the files that it was loaded from lack."""
    rows = [{"prompt": row["prompt"], "completion": row["chosen"]} for row in PREFERENCES]
    (tmp_path / "sft").mkdir()
    SftExecutor().run(training_task(model, rows, task_type="lora_sft", training={"steps": 6}), tmp_path / "sft")
    adapter = {"name": "sft", "path": str(tmp_path / "sft" / "final_lora")}
    task = training_task(model, PREFERENCES, task_type="dpo", training={"steps": 1}, adapters=[adapter])
    run(task, tmp_path / "dpo")
    assert measured(tmp_path / "dpo", "loss")[0] == pytest.approx(0.6931, abs=1e-4)


def test_an_adapter_is_trained_further_against_itself_and_resumed_exactly(model: Path, tmp_path: Path) -> None:
    rows = [{"prompt": row["prompt"], "completion": row["chosen"]} for row in PREFERENCES]
    (tmp_path / "sft").mkdir()
    SftExecutor().run(training_task(model, rows, task_type="lora_sft", training={"steps": 6}), tmp_path / "sft")

    def task(**folders: Path) -> Task:
        load = {"load": {"path": str(tmp_path / "sft" / "final_lora"), "type": "adapter"}}
        training = {"steps": 6, "save_freq": 4, "finetuning_type": "lora"}
        return training_task(model, PREFERENCES, task_type="dpo", checkpoint=load, training=training, **folders)

    run(task(checkpoint_dir=tmp_path / "saved"), tmp_path / "whole")
    assert measured(tmp_path / "whole", "loss")[0] == pytest.approx(0.6931, abs=1e-4)
    resumed = task(resume_from=tmp_path / "saved" / "step-00000004")
    run(resumed, tmp_path / "resumed")
    assert measured(tmp_path / "resumed", "loss") == measured(tmp_path / "whole", "loss")
    assert not (tmp_path / "whole" / "final_lora" / "ref").exists()


def test_reference_probabilities_can_be_computed_beforehand(model: Path, tmp_path: Path) -> None:
    plain = {"steps": 4, "batch_size": 4}
    run(training_task(model, PREFERENCES, task_type="dpo", training=plain), tmp_path / "as-it-goes")
    before = {**plain, "precompute_ref_log_probs": True}
    run(training_task(model, PREFERENCES, task_type="dpo", training=before), tmp_path / "before")
    assert measured(tmp_path / "before", "loss") == pytest.approx(measured(tmp_path / "as-it-goes", "loss"), abs=1e-4)


def test_preferences_between_whole_conversations_need_no_prompt(model: Path, tmp_path: Path) -> None:
    ask = {"role": "user", "content": "Say red."}
    rows = [
        {
            "chosen": [ask, {"role": "assistant", "content": "red"}],
            "rejected": [ask, {"role": "assistant", "content": "no"}],
        }
    ] * 4
    assert run(training_task(model, rows, task_type="dpo", training={"steps": 2}), tmp_path)["steps"] == 2


@pytest.mark.parametrize("more", [{}, {"lora": {"r": 8}}], ids=["full", "lora"])
def test_a_checkpoint_of_another_run_goes_on_against_the_same_reference(
    more: dict[str, Any], model: Path, tmp_path: Path
) -> None:
    training = {"steps": 6, "save_freq": 4}
    whole = training_task(
        model, PREFERENCES, task_type="dpo", training=training, checkpoint_dir=tmp_path / "saved", **more
    )
    run(whole, tmp_path / "whole")
    load = {"load": {"path": str(tmp_path / "saved" / "step-00000004"), "type": "auto"}}
    again = training_task(model, PREFERENCES, task_type="dpo", training={"steps": 6}, checkpoint=load, **more)
    run(again, tmp_path / "again")
    assert measured(tmp_path / "again", "rewards/margins") == measured(tmp_path / "whole", "rewards/margins")


def test_a_checkpoint_of_another_method_gives_its_weights_alone(model: Path, tmp_path: Path) -> None:
    rows = [{"prompt": row["prompt"], "completion": row["chosen"]} for row in PREFERENCES]
    (tmp_path / "sft").mkdir()
    saved = tmp_path / "saved"
    SftExecutor().run(
        training_task(model, rows, training={"steps": 3, "save_freq": 2}, checkpoint_dir=saved), tmp_path / "sft"
    )
    load = {"load": {"path": str(saved / "step-00000002"), "type": "checkpoint"}}
    task = training_task(model, PREFERENCES, task_type="dpo", training={"steps": 2}, checkpoint=load)
    assert run(task, tmp_path / "dpo")["steps"] == 2
    assert measured(tmp_path / "dpo", "loss")[0] == pytest.approx(0.6931, abs=1e-4)
    assert any("its steps do not count" in line for line in heard(task).lines())
