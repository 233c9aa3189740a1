"""The model that a policy is compared with: what the stage started from."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from mloc_tasks.errors import ModelError
from mloc_tasks.executors.training.loading import Trainee, load_for_training, training_checkpoint

if TYPE_CHECKING:
    from mloc_tasks.executors.base import Task


def load_with_reference(task: Task, *, method: str) -> Trainee:
    """The model to train, where the model that it starts from is the reference too. Raises ModelError.

    The trained weights of a training checkpoint in `checkpoint.load` are left to the trainer: the reference must not be
    them.
    """
    if training_checkpoint(task) is None:
        return load_for_training(task)
    if task.spec.model is None or task.spec.model.source is None:
        raise ModelError(
            f"checkpoint.load is a checkpoint of {method}, whose reference is the model that {method} began with",
            hint="name it in model.source; or write type: model, to begin anew against the checkpoint itself",
        )
    return load_for_training(task, from_source=True)


def keep_out_of_checkpoints(trainee: Trainee) -> None:
    """Where an adapter is trained further, TRL adds a frozen copy of it, `ref`, as the reference.

    In a checkpoint transformers would load that one and forget the trained one.
    """
    if trainee.adapts and trainee.lora is None:
        save = trainee.model.save_pretrained
        trainee.model.save_pretrained = functools.partial(save, selected_adapters=["default"])


@contextmanager
def grpo_reference(load: Callable[[], Any]) -> Iterator[None]:
    """Within it a GRPOTrainer that trains all weights takes what `load` gives as its reference.

    It has no argument for that, and left to itself loads what the model's config names, which lacks what was merged
    into it.
    """
    module: Any = importlib.import_module("trl.trainer.grpo_trainer")
    theirs = module.create_model_from_path
    module.create_model_from_path = lambda *_, **__: load()
    try:
        yield
    finally:
        module.create_model_from_path = theirs
