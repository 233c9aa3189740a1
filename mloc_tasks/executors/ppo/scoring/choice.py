"""Which reward model a stage names, loaded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mloc_tasks.errors import ExecutionError
from mloc_tasks.executors.ppo.scoring.checked import Scorer
from mloc_tasks.executors.ppo.scoring.classifier import classifier_scorer
from mloc_tasks.executors.ppo.scoring.function import function_scorer
from mloc_tasks.executors.ppo.scoring.sentiment import sentiment_scorer
from mloc_tasks.executors.ppo.scoring.text_model import load_text_model
from mloc_tasks.models import resolve
from mloc_tasks.spec.expressions import has_expression

if TYPE_CHECKING:
    from mloc_tasks.spec.model.model_source import RewardModel

KINDS = ("sentiment", "classifier", "function")
SAME_KIND = {"reward": "classifier", "sequence_classification": "classifier"}


def unsupported_reward(given: object) -> str | None:
    """Why a stage's `reward_model`, as its document has it, cannot score; None when it can, as far as that shows."""
    if not isinstance(given, Mapping):
        return "ppo needs a reward_model: {type: sentiment, identifier: MODEL} or {type: function, identifier: m:f}"
    kind = given.get("type")
    if kind is None or has_expression(kind) or SAME_KIND.get(str(kind).lower(), str(kind).lower()) in KINDS:
        return None
    return f"reward_model.type is {kind!r}, not one of {', '.join(KINDS)}"


def kind_of(given: RewardModel) -> str | None:
    """`sentiment`, `classifier` or `function`; None where only the model's files can tell.

    Raises ExecutionError for a type that is none of them.
    """
    if given.type is not None:
        kind = SAME_KIND.get(given.type.lower(), given.type.lower())
        if kind not in KINDS:
            raise ExecutionError(f"reward_model.type is {given.type!r}", hint=f"it is one of {', '.join(KINDS)}")
        return kind
    if given.path is None and given.identifier is not None and ":" in given.identifier:
        return "function"
    return None


def scorer_of(given: RewardModel | None, *, separator: str | None, device: str, cache_dir: Path) -> Scorer:
    """The reward model of a stage whose document went through `materialise`.

    Without a type, a model with one logit is a `classifier` and one with several classes a `sentiment`.

    Args:
        separator: between prompt and completion, for a classifier that reads both.
        device: where a model is put.

    Raises ExecutionError or ModelError, with what to do.
    """
    if given is None:
        raise ExecutionError(
            "the stage does not say what scores its completions",
            hint="write reward_model: {type: sentiment, identifier: MODEL}, or {type: function, identifier: "
            "module:function}",
        )
    kind = kind_of(given)
    if kind == "function":
        if given.identifier is None:
            raise ExecutionError(
                "reward_model.type is function, but no function is named",
                hint="set reward_model.identifier to module:function",
            )
        return function_scorer(given.identifier)
    files = resolve(
        kind="huggingface" if given.path is None else "local",
        identifier=given.path or given.identifier or "",
        revision=given.revision,
        trust_remote_code=given.trust_remote_code,
        cache_dir=cache_dir,
    )
    model = load_text_model(files, device=device, batch_size=given.batch_size)
    if kind == "classifier" or (kind is None and len(model.labels) == 1):
        return classifier_scorer(model, label=given.label, separator=separator)
    return sentiment_scorer(model, label=given.label)
