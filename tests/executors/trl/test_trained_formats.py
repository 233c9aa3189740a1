"""What is trained is in float32, whatever the model is loaded in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mloc_tasks.executors.trl import DpoExecutor, GrpoExecutor, RewardExecutor, SftExecutor
from mloc_tasks.executors.trl.executor import TrlExecutor
from tests.executors.training.tiny_model import make_tiny_model
from tests.executors.training.training_tasks import PREFERENCES, QUESTIONS, training_task

pytest.importorskip("trl")

GRPO = {"batch_size": 4, "num_generations": 4, "reward_functions": ["tests.executors.trl.letter_rewards:lower_case"]}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.mark.parametrize(
    ("executor", "rows", "more"),
    [
        (SftExecutor, QUESTIONS, {}),
        (DpoExecutor, PREFERENCES, {}),
        (RewardExecutor, PREFERENCES, {}),
        (GrpoExecutor, PREFERENCES, {"training": GRPO, "generation": {"max_tokens": 4}}),
    ],
    ids=["sft", "dpo", "reward", "grpo"],
)
def test_layers_beside_an_adapter_learn_what_16_bits_would_lose(
    executor: type[TrlExecutor],
    rows: list[dict[str, Any]],
    more: dict[str, Any],
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import torch
    from safetensors.torch import load_file

    monkeypatch.setattr("mloc_tasks.executors.training.precision.computes_half_precision", lambda: True)
    spec = {**more, "lora": {"r": 4, "modules_to_save": ["norm"]}}
    spec["training"] = {**more.get("training", {}), "steps": 2, "learning_rate": 1e-4}  # bfloat16 has 1 and 1.0078
    executor().run(training_task(model, rows, task_type=executor.name, **spec), tmp_path)
    saved = load_file(tmp_path / "final_lora" / "adapter_model.safetensors")
    assert {weights.dtype for weights in saved.values()} == {torch.float32}
    (norm,) = (weights for name, weights in saved.items() if name.endswith("model.norm.weight"))
    assert norm.min() < 1 - 1e-5 or norm.max() > 1 + 1e-5
