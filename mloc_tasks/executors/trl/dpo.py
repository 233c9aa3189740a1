"""Direct preference optimization (Rafailov et al. 2023): the better of two answers becomes the likelier one."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar

from mloc_tasks.executors.training.given import given_arguments
from mloc_tasks.executors.training.loading import Trainee, load_model
from mloc_tasks.executors.training.tokens import formatted, row_format
from mloc_tasks.executors.trl.arguments import DPO, Method
from mloc_tasks.executors.trl.executor import TrlExecutor
from mloc_tasks.executors.trl.reference import keep_out_of_checkpoints, load_with_reference

if TYPE_CHECKING:
    from mloc_tasks.executors.base import Rows, Task, TrainingRow


class DpoExecutor(TrlExecutor):
    """`dpo`. The reference is the model that the stage starts from.

    With a new adapter that is the same model with the adapter switched off; with the adapter of `checkpoint.load`, a
    frozen copy of the adapter; only when all weights are trained a second model is in memory.
    """

    name: ClassVar[str] = "dpo"
    method: ClassVar[Method] = DPO

    def load(self, task: Task) -> Trainee:
        return load_with_reference(task, method="DPO")

    def rows(self, inputs: Rows[TrainingRow], task: Task, trainee: Trainee) -> Iterable[TrainingRow]:
        separator = None if task.spec.data is None else task.spec.data.separator
        return map(_with_prompt, formatted(inputs, row_format(trainee.tokenizer, separator=separator)))

    def trainer_arguments(self, task: Task, trainee: Trainee) -> dict[str, Any]:
        if trainee.adapts:
            keep_out_of_checkpoints(trainee)
            return {}
        if given_arguments(task.spec).get("precompute_ref_log_probs"):
            return {}  # computed by the model itself, before it is trained
        # Left to itself TRL would load what the model's config names, which lacks what was merged into it.
        return {"ref_model": load_model(task.spec, trainee.files, trainee.precision)}


def _with_prompt(row: TrainingRow) -> TrainingRow:
    """`row`; of whole conversations what both begin with is the prompt.

    TRL would do the same, but into a table that loses what messages have from row 1000 on and not before.
    """
    if "prompt" in row:
        return row
    trl: Any = importlib.import_module("trl")
    return {**row, **trl.extract_prompt(row)}
