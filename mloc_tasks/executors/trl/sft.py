"""Supervised fine-tuning: the model learns to write the answers of its rows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar

from mloc_tasks.executors.training.given import given_arguments
from mloc_tasks.executors.training.loading import Trainee
from mloc_tasks.executors.training.tokens import formatted, row_format
from mloc_tasks.executors.trl.arguments import SFT, Method
from mloc_tasks.executors.trl.executor import TrlExecutor

if TYPE_CHECKING:
    from mloc_tasks.executors.base import Rows, Task, TrainingRow


class SftExecutor(TrlExecutor):
    """`sft`, and `lora_sft`, which trains an adapter by default.

    Rows with a prompt and a completion teach the completion alone, whole conversations and texts every token.
    """

    name: ClassVar[str] = "sft"
    task_types: ClassVar[tuple[str, ...]] = ("sft", "lora_sft")
    method: ClassVar[Method] = SFT

    def rows(self, inputs: Rows[TrainingRow], task: Task, trainee: Trainee) -> Iterable[TrainingRow]:
        form = row_format(
            trainee.tokenizer,
            separator=None if task.spec.data is None else task.spec.data.separator,
            template=given_arguments(task.spec).get("chat_template_path") is not None,
        )
        return formatted(inputs, form)
