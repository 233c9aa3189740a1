"""Every method, by two processes on a CPU: the same curve as by one, up to rounding."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mloc_tasks.executors.ppo.executor import PpoExecutor
from mloc_tasks.executors.training import TrainingExecutor
from mloc_tasks.executors.trl import DpoExecutor, RewardExecutor, SftExecutor
from tests.executors.training.tiny_model import make_tiny_model
from tests.executors.training.training_tasks import PREFERENCES, QUESTIONS, heard, training_task

pytest.importorskip("trl")

Run = Callable[..., list[dict[str, float]]]
ROWS = {
    "sft": QUESTIONS,
    "dpo": PREFERENCES,
    "reward": PREFERENCES,
    "ppo": [{"prompt": row["prompt"]} for row in QUESTIONS],
}
EXECUTORS: dict[str, type[TrainingExecutor]] = {
    "sft": SftExecutor,
    "dpo": DpoExecutor,
    "reward": RewardExecutor,
    "ppo": PpoExecutor,
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def run(model: Path, tmp_path: Path) -> Run:
    """Trains for four steps, each of four rows; gives what each step measured."""

    def train(
        task_type: str, name: str, *, processes: int, resume_from: Path | None = None, **training: Any
    ) -> list[dict[str, float]]:
        out_dir = tmp_path / name
        out_dir.mkdir()
        per_process = 4 if task_type == "ppo" else 4 // processes  # a rollout's batch is that of all processes
        more = {"reward_model": REWARD, "generation": {"max_tokens": 6}} if task_type == "ppo" else {}
        kept: Any = {"checkpoint_dir": tmp_path / "checkpoints"} if "save_freq" in training else {}
        settings = {"nproc_per_node": processes, "batch_size": per_process, "bf16": False, "seed": 3, **training}
        task = training_task(
            model, ROWS[task_type], task_type=task_type, training=settings, resume_from=resume_from, **kept, **more
        )
        result = EXECUTORS[task_type]().run(task, out_dir)
        assert result["steps"] == 4
        assert len(heard(task).measured) == (2 if resume_from else 4)
        lines = (out_dir / "metrics.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    return train


REWARD = {"type": "function", "identifier": "tests.executors.training.processes.rewards:length"}


def same(one: list[dict[str, float]], two: list[dict[str, float]], names: tuple[str, ...]) -> None:
    for alone, together in zip(one, two, strict=True):
        for name in names:
            assert math.isfinite(alone[name])
            assert together[name] == pytest.approx(alone[name], rel=2e-3, abs=1e-4), (alone["step"], name)


SHOWN = {
    "sft": ("loss", "grad_norm", "learning_rate", "num_tokens", "mean_token_accuracy"),
    "dpo": ("loss", "grad_norm", "rewards/chosen", "rewards/margins", "rewards/accuracies"),
    "reward": ("loss", "grad_norm", "accuracy", "margin", "num_tokens"),
    "ppo": ("mean_reward", "kl", "loss", "policy_loss", "value_loss", "entropy"),
}
GO_ON = {"sft", "ppo"}  # from a checkpoint of two processes: TRL's way and ours


@pytest.mark.parametrize("task_type", ["sft", "dpo", "reward", "ppo"])
def test_two_processes_measure_what_one_does(task_type: str, run: Run, tmp_path: Path) -> None:
    one = run(task_type, "one", processes=1)
    two = run(task_type, "two", processes=2, save_freq=2)
    same(one, two, SHOWN[task_type])
    files = [sorted(path.name for path in (tmp_path / name).iterdir()) for name in ("one", "two")]
    assert files[0] == files[1]
    if task_type in GO_ON:
        checkpoint = (tmp_path / "checkpoints" / "step-00000002").rename(tmp_path / "fetched")
        resumed = run(task_type, "resumed", processes=2, save_freq=2, resume_from=checkpoint)
        same(two, resumed, SHOWN[task_type])
