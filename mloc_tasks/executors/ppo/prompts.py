"""The prompts that rollouts begin with, and their order."""

from __future__ import annotations

import random
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from mloc_tasks.errors import InputError
from mloc_tasks.executors.base import Item
from mloc_tasks.executors.generation.prompts import PromptEncoder, RowError
from mloc_tasks.executors.training.tokens import RowFormat


@dataclass(frozen=True, slots=True)
class Prompt:
    """One row of the data: its token ids, and what reward models are shown: the prompt as the data has it, and the
    row's other columns."""

    ids: Sequence[int]
    given: Item
    further: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class PromptOrder:
    """Which rows a rollout begins with: all of them once in each pass over the data, every pass in its own order.

    A function of the seed and the position, so that a resumed run needs no saved state; a rollout may be larger than
    the data and reach into the next pass.
    """

    rows: int
    seed: int

    def at(self, position: int) -> int:
        """The row that stands at `position` of the endless sequence."""
        epoch, place = divmod(position, self.rows)
        return _shuffled(self.rows, self.seed, epoch)[place]


def encoded(
    rows: Iterable[Any], tokenizer: Any, *, form: RowFormat, most_tokens: int | None, cut: bool, new_tokens: int
) -> tuple[list[Prompt], int]:
    """The prompts of training rows `{"prompt": text or messages}`, and how many of them had to be cut.

    Args:
        form: what prompts are turned into before the model sees them.
        most_tokens: of prompt and completion together; None: no limit is known.
        cut: longer prompts lose their beginning; otherwise they are refused.
        new_tokens: room that a completion needs.

    Raises:
        InputError: naming the row: it has no prompt, an empty one, or one that leaves no room.
    """
    room = None if most_tokens is None else most_tokens - new_tokens
    if room is not None and room < 1:
        raise InputError(
            f"{new_tokens} new tokens leave no room for a prompt in {most_tokens} tokens",
            hint="lower generation.max_new_tokens, or raise training.max_seq_length",
        )
    encoder = PromptEncoder(tokenizer=tokenizer, chat=form.chat, system_prompt=None, context_length=None)
    prompts: list[Prompt] = []
    cuts = 0
    for number, row in enumerate(rows):
        given = row.get("prompt") if isinstance(row, dict) else row
        if given is None:
            raise InputError(f"row {number} of the data has no prompt", hint="name its column: data.prompt_column")
        try:
            ids = encoder.encode(form.conversation({"prompt": given})["prompt"])
        except RowError as error:
            raise InputError(f"row {number} of the data: {error}") from error
        except InputError as error:
            raise InputError(f"row {number} of the data: {error}", hint=error.hint) from error
        if room is not None and len(ids) > room:
            if not cut:
                raise InputError(
                    f"row {number} of the data has a prompt of {len(ids)} tokens; with {new_tokens} new ones that is "
                    f"more than the model's context of {most_tokens}",
                    hint="set training.max_seq_length to have longer prompts lose their beginning",
                )
            ids, cuts = ids[-room:], cuts + 1
        further = {name: value for name, value in row.items() if name != "prompt"} if isinstance(row, dict) else {}
        prompts.append(Prompt(array("i", ids), given, further))
    if not prompts:
        raise InputError("the data has no rows: there is nothing to begin a rollout with")
    return prompts, cuts


@lru_cache(maxsize=2)
def _shuffled(rows: int, seed: int, epoch: int) -> Sequence[int]:
    order = list(range(rows))
    random.Random(f"{seed}/prompts/{epoch}").shuffle(order)
    return order
