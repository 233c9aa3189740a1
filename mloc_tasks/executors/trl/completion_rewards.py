"""What scores GRPO's completions: reward functions and the reward model, in the form that TRL calls them in."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from mloc_tasks.errors import ExecutionError
from mloc_tasks.executors.generation.model_files import cache_dir_of
from mloc_tasks.executors.scoring import Scorer, scorer_of
from mloc_tasks.executors.scoring.checked import columns_of
from mloc_tasks.executors.scoring.function import function_scorer

if TYPE_CHECKING:
    from mloc_tasks.executors.base import Task, TrainingRow

GIVEN = "given"
"""The column of TRL's dataset that holds the whole row as JSON, exactly as the data has it."""

Reward = Callable[..., list[float]]
"""Called by TRL with keyword arguments: `prompts`, `completions`, the columns of its dataset, and more."""


def rewards_of(task: Task, *, device: str) -> list[Reward]:
    """One for each of `training.reward_functions`, and one for `reward_model`; their rewards are added up.

    `training.reward_weights` weighs them in this order. Metrics call a function by its name, `rewards/NAME/mean`, and
    the reward model `rewards/reward_model/mean`.

    Raises ExecutionError or ModelError when there is none, or one cannot be loaded.
    """
    spec = task.spec
    names = () if spec.training is None else spec.training.reward_functions
    found = [_reward(function_scorer(name), name=name.rpartition(":")[2]) for name in names]
    if spec.reward_model is not None:
        separator = None if spec.data is None else spec.data.separator
        scorer = scorer_of(spec.reward_model, separator=separator, device=device, cache_dir=cache_dir_of(task))
        found.append(_reward(scorer, name="reward_model"))
    if not found:
        raise ExecutionError(
            "nothing scores the completions",
            hint="add reward_model, or training.reward_functions: [module:function]",
        )
    return found


def given(row: TrainingRow) -> str:
    """What stands in the column `GIVEN`."""
    return json.dumps(row)


def _reward(scorer: Scorer, *, name: str) -> Reward:
    def reward(*, completions: Sequence[Any], **more: Any) -> list[float]:
        rows: list[dict[str, Any]] = [json.loads(each) for each in more[GIVEN]]
        prompts, texts = [row["prompt"] for row in rows], [_text(each) for each in completions]
        return scorer(prompts, texts, columns=columns_of(rows))

    reward.__name__ = name
    return reward


def _text(completion: str | list[dict[str, Any]]) -> str:
    """What the model wrote; in a conversation TRL gives it as messages."""
    if isinstance(completion, str):
        return completion
    return "".join(message.get("content") or "" for message in completion)
