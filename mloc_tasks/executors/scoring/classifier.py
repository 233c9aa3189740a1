"""Rewards by a model with a classification head over prompt and completion, as reward modelling makes it."""

from __future__ import annotations

from collections.abc import Sequence

from mloc_tasks.errors import ExecutionError
from mloc_tasks.executors.base import Item
from mloc_tasks.executors.scoring.checked import Columns, Scorer, checked_scores, text_of
from mloc_tasks.executors.scoring.text_model import TextModel
from mloc_tasks.executors.training.tokens import RowFormat, row_format


def classifier_scorer(model: TextModel, *, label: str | None, separator: str | None) -> Scorer:
    """Scores prompt and completion together: the one logit of a reward model, or the logit of class `label`.

    Both are written as for the training of a reward model: by the chat template of its own tokenizer where it has one,
    else one behind the other with `separator` between, and behind both the end-of-text token if the model's head looks
    at the last one.

    Raises ExecutionError when the model has several classes and `label` names none of them.
    """
    column = _column(model, label)
    form = row_format(model.tokenizer, separator=separator)

    def score(prompts: Sequence[Item], completions: Sequence[str], *, columns: Columns | None = None) -> list[float]:
        texts = [_written(model, form, *pair) for pair in zip(prompts, completions, strict=True)]
        source = f"the reward model {model.name}"
        logits = model.logits(texts, special_tokens=not form.chat)  # a chat template writes its own
        return checked_scores(logits[:, column], completions=completions, source=source)

    return score


def _written(model: TextModel, form: RowFormat, prompt: Item, completion: str) -> str:
    row = form.conversation({"prompt": prompt if form.chat else text_of(prompt), "completion": completion})
    if not form.chat:
        text = f"{row['prompt']}{row['completion']}"
        end = model.tokenizer.eos_token if model.reads_last_token else None
        return text if end is None or text.endswith(end) else f"{text}{end}"
    return str(model.tokenizer.apply_chat_template(row["prompt"] + row["completion"], tokenize=False))


def _column(model: TextModel, label: str | None) -> int:
    if label is None and len(model.labels) == 1:
        return 0
    for number, name in model.labels.items():
        if label is not None and name.lower() == label.lower():
            return number
    found = f"the reward model {model.name} has {len(model.labels)} classes: {', '.join(model.labels.values())}"
    raise ExecutionError(
        found if label is None else f"{found}; none is {label!r}",
        hint="set reward_model.label to the class whose logit is the reward",
    )
