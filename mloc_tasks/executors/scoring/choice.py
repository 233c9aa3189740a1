"""Which reward model a stage names, loaded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mloc_tasks.errors import ExecutionError
from mloc_tasks.executors.scoring.checked import Scorer
from mloc_tasks.executors.scoring.classifier import classifier_scorer
from mloc_tasks.executors.scoring.function import function_scorer
from mloc_tasks.executors.scoring.sentiment import sentiment_scorer
from mloc_tasks.executors.scoring.text_model import load_text_model
from mloc_tasks.models import resolve

if TYPE_CHECKING:
    from mloc_tasks.spec.model.model_source import RewardModel


def scorer_of(given: RewardModel | None, *, separator: str | None, device: str, cache_dir: Path) -> Scorer:
    """The reward model of a stage whose document went through `materialise`.

    Without a type, `module:function` is a function, a model with one logit a `classifier`, with several a `sentiment`.

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
    named_function = given.type is None and given.path is None and ":" in (given.identifier or "")
    if given.identifier is not None and (given.type == "function" or named_function):
        return function_scorer(given.identifier)
    files = resolve(
        kind="huggingface" if given.path is None else "local",
        identifier=given.path or given.identifier or "",
        revision=given.revision,
        trust_remote_code=given.trust_remote_code,
        cache_dir=cache_dir,
    )
    model = load_text_model(files, device=device, batch_size=given.batch_size)
    if given.type in ("classifier", "reward") or (given.type is None and len(model.labels) == 1):
        return classifier_scorer(model, label=given.label, separator=separator)
    return sentiment_scorer(model, label=given.label)
