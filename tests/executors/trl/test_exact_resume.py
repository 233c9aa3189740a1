"""A training that is killed and goes on from its checkpoints measures what an undisturbed one does, to the last bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mloc_tasks.executors.base import Task
from mloc_tasks.executors.trl import DpoExecutor, RewardExecutor, SftExecutor
from mloc_tasks.executors.trl.executor import TrlExecutor
from tests.executors.training.tiny_model import make_tiny_model
from tests.executors.training.training_tasks import PREFERENCES, QUESTIONS, heard, training_task
from tests.executors.trl.disturbed import kill, newest, run

pytest.importorskip("trl")

STEPS = 11  # more than an epoch: 8 steps with 16 rows, 6 with 12


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"), dropout=0.2)


@pytest.mark.parametrize(
    ("executor", "more"),
    [
        (SftExecutor, {"task_type": "sft"}),
        (SftExecutor, {"task_type": "lora_sft", "lora": {"r": 4, "dropout": 0.2}}),
        (DpoExecutor, {"task_type": "dpo"}),
        (RewardExecutor, {"task_type": "reward"}),
        (RewardExecutor, {"task_type": "reward", "lora": {"r": 4, "dropout": 0.2}}),
    ],
    ids=["sft", "lora_sft", "dpo", "reward", "lora_reward"],
)
def test_a_training_killed_twice_measures_what_an_undisturbed_one_does(
    executor: type[TrlExecutor], more: dict[str, Any], model: Path, tmp_path: Path
) -> None:
    undisturbed = run(executor, task(model, more), tmp_path / "undisturbed")

    first = task(model, more, checkpoint_dir=tmp_path / "checkpoints-1")
    kill(executor, first, at=5, out_dir=tmp_path / "out-1")
    second = task(model, more, checkpoint_dir=tmp_path / "checkpoints-2", resume_from=newest(first))
    kill(executor, second, at=9, out_dir=tmp_path / "out-2")
    third = task(model, more, checkpoint_dir=tmp_path / "checkpoints-3", resume_from=newest(second))
    disturbed = run(executor, third, tmp_path / "out-3")

    assert newest(first).name == "step-00000004"
    assert newest(second).name == "step-00000008"
    assert [step for step, _ in heard(third).measured] == [9, 10, 11]
    metrics = "metrics.jsonl"
    assert (tmp_path / "out-3" / metrics).read_text() == (tmp_path / "undisturbed" / metrics).read_text()
    assert disturbed["metrics"] == undisturbed["metrics"]
    assert disturbed["steps"] == undisturbed["steps"] == STEPS
    for weights in sorted((tmp_path / "undisturbed").rglob("*.safetensors")):
        same = tmp_path / "out-3" / weights.relative_to(tmp_path / "undisturbed")
        assert same.read_bytes() == weights.read_bytes()


def task(model: Path, more: dict[str, Any], **folders: Path) -> Task:
    rows = PREFERENCES if more["task_type"] in ("dpo", "reward") else QUESTIONS
    return training_task(model, rows, training={"steps": STEPS, "save_freq": 4}, **folders, **more)
