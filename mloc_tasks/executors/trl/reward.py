"""Reward modelling (Bradley and Terry 1952, Ouyang et al. 2022): the better of two answers gets the higher score."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar

from mloc_tasks.executors.scoring.text_model import HEADS
from mloc_tasks.executors.training.given import given_arguments
from mloc_tasks.executors.training.loading import SCORER, Trainee, load_for_training
from mloc_tasks.executors.training.tokens import formatted, row_format
from mloc_tasks.executors.trl.arguments import REWARD, Method
from mloc_tasks.executors.trl.executor import TrlExecutor

if TYPE_CHECKING:
    from mloc_tasks.executors.base import Rows, Task, TrainingRow

DEFAULT_SEED = 42  # of transformers


class RewardExecutor(TrlExecutor):
    """`reward`: trains a model with one score for prompt and answer, which `ppo` and `grpo` take as a `classifier`.

    A language model gets a new head for it. With an adapter the head is trained in full beside it, and saved with it.
    """

    name: ClassVar[str] = "reward"
    method: ClassVar[Method] = REWARD

    def load(self, task: Task) -> Trainee:
        import torch

        # A new head's weights are drawn while loading: by the seed, so that they are the same in every process.
        torch.manual_seed(_seed(task))
        with _new_head_expected():
            return load_for_training(task, auto_class=SCORER, num_labels=1)

    def rows(self, inputs: Rows[TrainingRow], task: Task, trainee: Trainee) -> Iterable[TrainingRow]:
        form = row_format(
            trainee.tokenizer,
            separator=None if task.spec.data is None else task.spec.data.separator,
            template=given_arguments(task.spec).get("chat_template_path") is not None,
        )
        return formatted(inputs, form)


def _seed(task: Task) -> int:
    given = None if task.spec.training is None else task.spec.training.seed
    return DEFAULT_SEED if given is None else given


@contextmanager
def _new_head_expected() -> Iterator[None]:
    """Within it Transformers does not warn that a language model has no head that scores."""

    def is_news(record: logging.LogRecord) -> bool:
        lines = re.findall(
            r"^(\w+)\S* *\|.*(?:MISSING|UNEXPECTED|MISMATCH|CONVERSION)", record.getMessage(), re.MULTILINE
        )
        return not lines or not HEADS.union({"lm_head"}).issuperset(lines)

    logger = logging.getLogger("transformers.modeling_utils")
    logger.addFilter(is_news)
    try:
        yield
    finally:
        logger.removeFilter(is_news)
