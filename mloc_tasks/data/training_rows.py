"""The rows that training stages are given, out of whatever rows their data hold.

    sft, lora_sft   {"prompt", "completion"}, {"messages"} or {"text"}
    dpo, reward     {"prompt", "chosen", "rejected"}, or {"chosen", "rejected"} where these are whole conversations
                    (reward: or texts that stand without a prompt)
    ppo, grpo       {"prompt"}

`messages` is a list of chat messages `{"role", "content"}`, `text` a text, and each of the others either; within a row
all are texts or all are messages. Further columns of the source stand beside them, for reward functions, except those
that JSON cannot say (images) and, where no reward function reads them, those whose names would mean another form.

Columns are those that `data.*_column` names. One that is not named is found by its name: the first there of
`PROMPTS`, `ANSWERS`, `CONVERSATIONS`, `TEXT`. With `instruction` for the prompt, a text in `input` or `context`
follows it (the form of Alpaca and Dolly).
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from mloc_tasks.data.conversations import Content, answered, asked, content_of, starts_conversation, without_answer
from mloc_tasks.data.json_values import NotJsonError, json_value
from mloc_tasks.data.rows import Reading, Where, listed, named_column
from mloc_tasks.errors import InputError
from mloc_tasks.executors.base import TrainingRow
from mloc_tasks.spec.model.data import Columns

logger = logging.getLogger(__name__)

PROMPTS = ("prompt", "instruction", "question", "input", "query")
ANSWERS = ("completion", "response", "output", "answer")
CONVERSATIONS = ("messages", "conversations", "conversation")
TEXT = "text"

_CONTEXTS = {"instruction": ("input", "context")}
_FORMS = frozenset({"prompt", "completion", "messages", "text", "chosen", "rejected"})
"""Keys by which trainers tell what a row is: one that is left over would mean another form."""


class TrainingReading(Reading):
    """What a training stage makes of a row; a subclass for each kind of method.

    Class attributes:
        alone: the part of the row that a text or a chat without columns is; None: it can be none.
        keeps_forms: columns named as those of another form are kept, because only a reward function reads them.
    """

    alone: ClassVar[str | None] = None
    keeps_forms: ClassVar[bool] = False

    def __init__(self, columns: Columns) -> None:
        self._given = columns
        self._left_out: set[str] = set()

    def columns(self, names: list[str], where: Where) -> list[str]:
        """All of them: reward functions may read any. Raises InputError when a needed one is not there."""
        self._find(names, where)
        return names

    def row(self, value: object, where: Where) -> TrainingRow:
        if not isinstance(value, dict):
            return self._made({self._alone(where): _content(value, where)}, [], where)
        used = self._find(list(value), where)
        read = {part: _content(value[name], lambda at=name: f"{where()}, column {at!r}") for part, name in used.items()}  # type: ignore[misc]
        if isinstance(prompt := read.get("prompt"), str) and (context := self._context(value, used)):
            read["prompt"] = f"{prompt}\n\n{context}"
        made: TrainingRow = self._made(read, list(value), where)
        taken = {*used.values(), *made, *(() if self.keeps_forms else _FORMS)}
        for name, other in value.items():
            if name not in taken:
                self._keep(name, other, made)
        return made

    @abstractmethod
    def _find(self, names: list[str], where: Where) -> dict[str, str]:
        """Part of the row (`prompt`, `chosen`, ...) -> the column that holds it. Raises InputError."""

    @abstractmethod
    def _made(self, read: Mapping[str, Content], names: list[str], where: Where) -> TrainingRow:
        """The row's own keys, out of the parts that were read; `names` are all columns. Raises InputError."""

    def _alone(self, where: Where) -> str:
        if self.alone is None:
            raise InputError(
                f"{where()}: one text or chat is no pair of answers",
                hint="a row has the columns prompt, chosen and rejected; in the spec: data.preferences",
            )
        return self.alone

    def _column(self, key: str, names: list[str], usual: Sequence[str], where: Where) -> str | None:
        """The column that `data.<key>` names, else the first of the usual ones; None when none is there."""
        given: str | None = getattr(self._given, key)
        if given is not None:
            return named_column(names, given, where, key=key)
        return next((name for name in usual if name in names), None)

    def _prompt(self, names: list[str], where: Where, usual: Sequence[str] = PROMPTS) -> str | None:
        key = "column" if self._given.prompt_column is None and self._given.column is not None else "prompt_column"
        return self._column(key, names, usual, where)

    def _context(self, value: Mapping[str, Any], used: Mapping[str, str]) -> str:
        """The text that belongs to a prompt which was found by its name."""
        if self._given.prompt_column is None and self._given.column is None:
            for name in _CONTEXTS.get(used["prompt"], ()):
                if name not in used.values() and isinstance(text := value.get(name), str) and text.strip():
                    return text
        return ""

    def _keep(self, name: str, value: Any, row: TrainingRow) -> None:
        try:
            row[name] = json_value(value)
        except NotJsonError as error:
            if name not in self._left_out:
                self._left_out.add(name)
                logger.warning("column %r is left out: JSON has no form for its values (%s)", name, error)


class DemonstrationRows(TrainingReading):
    """Answers to imitate: prompt and completion, a conversation, or a text."""

    alone = "whole"

    def _find(self, names: list[str], where: Where) -> dict[str, str]:
        given = self._given
        split = given.prompt_column is not None or given.response_column is not None
        if not split:
            if given.column is not None:
                return {"whole": named_column(names, given.column, where, key="column")}
            if (conversation := next((name for name in CONVERSATIONS if name in names), None)) is not None:
                return {"messages": conversation}
        prompt = self._prompt(names, where)
        answer = self._column("response_column", names, [name for name in ANSWERS if name != prompt], where)
        if prompt is not None and answer is not None:
            return {"prompt": prompt, "completion": answer}
        if not split and (TEXT in names or len(names) == 1):
            return {"whole": TEXT if TEXT in names else names[0]}
        if prompt is None and answer is None:
            raise InputError(
                f"{where()}: no column to learn from; the columns are {listed(names)}",
                hint="set data.prompt_column and data.response_column, or data.column for whole texts or chats",
            )
        raise _missing("prompt", names, where) if prompt is None else _missing("response", names, where)

    def _made(self, read: Mapping[str, Content], names: list[str], where: Where) -> TrainingRow:
        if "prompt" in read:
            prompt, answer = read["prompt"], read["completion"]
            if isinstance(prompt, str) and isinstance(answer, str):
                return {"prompt": prompt, "completion": answer}
            return {"prompt": asked(prompt), "completion": answered(answer)}
        whole = read["whole"] if "whole" in read else read["messages"]
        if not isinstance(whole, str):
            return {"messages": whole}
        if "messages" in read:
            raise InputError(
                f"{where()}: messages are a text, not a list of chat messages",
                hint="to learn it as a text, set data.column",
            )
        return {"text": whole}


class PreferenceRows(TrainingReading):
    """Two answers to one prompt, the better one named."""

    needs_prompt: ClassVar[bool] = True

    def _find(self, names: list[str], where: Where) -> dict[str, str]:
        chosen = self._column("chosen_column", names, ["chosen"], where)
        rejected = self._column("rejected_column", names, ["rejected"], where)
        if chosen is None or rejected is None:
            raise _missing("chosen" if chosen is None else "rejected", names, where)
        prompt = self._prompt(names, where)
        return {"chosen": chosen, "rejected": rejected, **({} if prompt is None else {"prompt": prompt})}

    def _made(self, read: Mapping[str, Content], names: list[str], where: Where) -> TrainingRow:
        chosen, rejected, prompt = read["chosen"], read["rejected"], read.get("prompt")
        whole = [_is_conversation(answer, name, where) for name, answer in (("chosen", chosen), ("rejected", rejected))]
        if all(whole):  # the prompt stands in both
            return {"chosen": chosen, "rejected": rejected}
        if any(whole):
            raise InputError(
                f"{where()}: one of chosen and rejected is a whole conversation, the other an answer only",
                hint="write both with the prompt's messages, or both without",
            )
        if prompt is None:
            if self.needs_prompt or not (isinstance(chosen, str) and isinstance(rejected, str)):
                raise _missing("prompt", names, where)
            return {"chosen": chosen, "rejected": rejected}
        if isinstance(prompt, str) and isinstance(chosen, str) and isinstance(rejected, str):
            return {"prompt": prompt, "chosen": chosen, "rejected": rejected}
        return {"prompt": asked(prompt), "chosen": answered(chosen), "rejected": answered(rejected)}


class RankedRows(PreferenceRows):
    """Preferences of which a reward model sees each answer by itself, so that texts may bring no prompt."""

    needs_prompt = False


class PromptRows(TrainingReading):
    """Prompts that the model answers itself; a conversation is one up to the answer at its end."""

    alone = "prompt"
    keeps_forms = True

    def _find(self, names: list[str], where: Where) -> dict[str, str]:
        prompt = self._prompt(names, where, (*PROMPTS, *CONVERSATIONS, TEXT))
        if prompt is None and len(names) == 1:
            prompt = names[0]
        if prompt is None:
            raise _missing("prompt", names, where)
        return {"prompt": prompt}

    def _made(self, read: Mapping[str, Content], names: list[str], where: Where) -> TrainingRow:
        prompt = read["prompt"]
        if not isinstance(prompt, str) and not (prompt := without_answer(prompt)):
            raise InputError(f"{where()}: the chat has nothing to answer, only messages of the assistant")
        return {"prompt": prompt}


_READINGS: dict[str, type[TrainingReading]] = {
    "sft": DemonstrationRows,
    "lora_sft": DemonstrationRows,
    "dpo": PreferenceRows,
    "reward": RankedRows,
    "ppo": PromptRows,
    "grpo": PromptRows,
}


def training_reading(task_type: str, columns: Columns) -> TrainingReading | None:
    """What a stage of this task type makes of its rows; None when it is no training.

    `columns` are the names that its `data` gives.
    """
    reading = _READINGS.get(task_type)
    return None if reading is None else reading(columns)


def _content(value: object, where: Where) -> Content:
    content = content_of(value, where)
    if isinstance(content, str):
        return content
    try:
        return [json_value(message) for message in content]
    except NotJsonError as error:
        raise InputError(f"{where()}: the chat holds something that is no text ({error})") from error


def _is_conversation(answer: Content, name: str, where: Where) -> bool:
    """Whether it begins with the prompt. Raises InputError for a chat that does not end with an answer."""
    if isinstance(answer, str):
        return False
    if answer[-1]["role"] != "assistant":
        raise InputError(
            f"{where()}: the last message of {name} is not the assistant's but from {answer[-1]['role']!r}"
        )
    return starts_conversation(answer)


def _missing(part: str, names: list[str], where: Where) -> InputError:
    usual = {"prompt": PROMPTS, "response": ANSWERS}.get(part, (part,))
    return InputError(
        f"{where()}: no column of the {part}; the columns are {listed(names)}",
        hint=f"set data.{part}_column to one of them; without it {' or '.join(usual)} is taken",
    )
