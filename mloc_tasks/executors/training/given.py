"""What a stage's `training` says beside MLOC's own names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mloc_tasks.spec.training_arguments import is_of_another_method

if TYPE_CHECKING:
    from mloc_tasks.spec import StageSpec


def given_arguments(spec: StageSpec) -> Mapping[str, Any]:
    """Arguments of the method's TRL config and of transformers' TrainingArguments, by their own names.

    Those of other methods are left out: several stages may share one `training`.
    """
    found = {} if spec.training is None else spec.training.model_extra or {}
    return {name: value for name, value in found.items() if not is_of_another_method(name, spec.task_type)}


def keeps_model(spec: StageSpec) -> bool:
    """Whether the trained model is kept (`training.save_model`)."""
    return spec.training is None or spec.training.save_model
