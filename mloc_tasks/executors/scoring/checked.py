"""What reward models may return, and what they are shown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from mloc_tasks.errors import ExecutionError
from mloc_tasks.executors.base import Item

Columns = Mapping[str, Sequence[Any]]
"""What else the data's rows hold, by name: one value for each completion. Functions alone look at it."""


class Scorer(Protocol):
    """From prompts, as the data has them, and completions to one finite score each."""

    def __call__(
        self, prompts: Sequence[Item], completions: Sequence[str], *, columns: Columns | None = None
    ) -> list[float]: ...


def columns_of(rows: Sequence[Mapping[str, Any]]) -> Columns:
    """The columns of rows of data, less their prompts; None where a row has no such column."""
    names = dict.fromkeys(name for row in rows for name in row if name != "prompt")
    return {name: [row.get(name) for row in rows] for name in names}


def checked_scores(given: Any, *, completions: Sequence[str], source: str) -> list[float]:
    """What a reward model gave, as floats: one finite number for each completion. Raises ExecutionError.

    Args:
        source: what the messages call the reward model.
    """
    if hasattr(given, "tolist"):
        given = given.tolist()  # an array or a tensor
    if isinstance(given, str | bytes | dict) or not hasattr(given, "__len__"):
        raise ExecutionError(
            f"{source} returned {type(given).__name__}, not a list of numbers", hint="one for each completion"
        )
    if len(given) != len(completions):
        raise ExecutionError(
            f"{source} returned {len(given)} rewards for {len(completions)} completions",
            hint="it must return one number for each completion, in their order",
        )
    return [_finite(each, completions[row], source) for row, each in enumerate(given)]


def text_of(prompt: Item) -> str:
    """A prompt as one text: of a conversation, what the user said last."""
    if isinstance(prompt, str):
        return prompt
    said = [message for message in prompt if message.get("role") == "user"] or prompt
    content = said[-1].get("content")
    return content if isinstance(content, str) else str(content)


def _finite(value: Any, completion: str, source: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise ExecutionError(f"{source} returned {value!r} among its rewards, which is no number") from None
    if not math.isfinite(number):
        shown = completion if len(completion) <= 80 else completion[:77] + "..."
        raise ExecutionError(
            f"{source} gave {number} for the completion {shown!r}",
            hint="a reward must be a finite number for every text, the empty one included",
        )
    return number
