"""Rewards by how positive a completion sounds to a text classifier."""

from __future__ import annotations

from collections.abc import Sequence

from mloc_tasks.errors import ExecutionError
from mloc_tasks.executors.base import Item
from mloc_tasks.executors.scoring.checked import Columns, Scorer, checked_scores
from mloc_tasks.executors.scoring.text_model import TextModel

POSITIVE = ("positive", "pos")
NEGATIVE = ("negative", "neg")


def sentiment_scorer(model: TextModel, *, label: str | None) -> Scorer:
    """Scores the completion alone: P(positive) - P(negative), from -1 to 1; with `label` P(label), from 0 to 1.

    Raises ExecutionError when the model has no such classes.
    """
    plus = _class_of(model, (label,) if label is not None else POSITIVE)
    minus = None if label is not None else _class_of(model, NEGATIVE)

    def score(prompts: Sequence[Item], completions: Sequence[str], *, columns: Columns | None = None) -> list[float]:
        probabilities = model.logits(completions).softmax(dim=-1)
        scores = probabilities[:, plus] - (0 if minus is None else probabilities[:, minus])
        return checked_scores(scores, completions=completions, source=f"the reward model {model.name}")

    return score


def _class_of(model: TextModel, names: Sequence[str]) -> int:
    wanted = {name.lower() for name in names}
    for number, label in model.labels.items():
        if label.lower() in wanted:
            return number
    raise ExecutionError(
        f"the reward model {model.name} has no class {names[0]!r}; its classes: {', '.join(model.labels.values())}",
        hint="set reward_model.label to the class whose probability is the reward, or type: classifier for a single "
        "logit",
    )
