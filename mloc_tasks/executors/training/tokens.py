"""The tokenizer, and how rows become what a model is trained on: conversations where it has a chat template."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mloc_tasks.errors import InputError, ModelError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mloc_tasks.executors.base import TrainingRow
    from mloc_tasks.models import ModelFiles

PAD_NAMES = ("<pad>", "<|pad|>", "[PAD]", "<|finetune_right_pad_id|>", "<|pad_token|>", "<|endoftext|>", "<|padding|>")
"""Tokens that models have for padding, by name; `<|endoftext|>` is one where another token ends a turn."""

ANSWERS = ("completion", "chosen", "rejected")
BESIDE: Mapping[str, type] = {"tools": list, "chat_template_kwargs": dict}
"""Columns that a chat template is given beside the messages; a row may have them or not."""

SEPARATOR = "\n"
"""Between a prompt and its answer in plain text, where neither has white space there and `data.separator` is silent."""


def tokenizer_for(files: ModelFiles) -> Any:
    """The model's tokenizer, with a `pad_token` that does not end a completion where the vocabulary has one."""
    from transformers import AutoTokenizer

    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(
            files.location, revision=files.revision, trust_remote_code=files.trust_remote_code
        )
    except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
        raise ModelError(f"the model {files.name} has no tokenizer that loads: {error}") from error
    if tokenizer.eos_token is None:
        raise ModelError(
            f"the tokenizer of {files.name} names no end-of-text token", hint="set eos_token in tokenizer_config.json"
        )
    tokenizer.pad_token = pad_token_of(tokenizer)
    return tokenizer


def pad_token_of(tokenizer: Any) -> str:
    """The token that fills rows of unequal length.

    Not the end-of-text token where there is another: methods that know padding by its id would take the end of a
    completion for padding, and a model would never learn to stop.
    """
    end: str = tokenizer.eos_token
    known = tokenizer.get_vocab()
    for candidate in (tokenizer.pad_token, *PAD_NAMES, tokenizer.unk_token):
        if candidate is not None and candidate != end and candidate in known:
            return str(candidate)
    return end


@dataclass(frozen=True, kw_only=True)
class RowFormat:
    """What rows are turned into.

    Attributes:
        chat: conversations, which the model's chat template renders; else plain text.
        separator: text between prompt and answer in plain text; None: SEPARATOR where one is needed.
    """

    chat: bool
    separator: str | None = None

    def conversation(self, row: TrainingRow) -> TrainingRow:
        """`row` as messages (`chat`) or as plain text. Raises InputError where it cannot be."""
        if "messages" in row:
            if not self.chat:
                raise _needs_template()
            return {"messages": messages(row["messages"], role="user"), **_beside(row)}
        if "text" in row and not any(key in row for key in ANSWERS):
            return {"text": row["text"]}
        answers = {key: row[key] for key in ANSWERS if row.get(key) is not None}
        prompt = row.get("prompt")
        if not self.chat:
            return self._plain(prompt, answers)
        # A preference between whole conversations has no prompt of its own.
        turned = {} if prompt is None else {"prompt": messages(prompt, role="user")}
        return {**turned, **{key: messages(value, role="assistant") for key, value in answers.items()}, **_beside(row)}

    def _plain(self, prompt: Any, answers: Mapping[str, Any]) -> TrainingRow:
        if not all(isinstance(value, str) for value in answers.values()) or not isinstance(prompt, str | None):
            raise _needs_template()
        if prompt is None:
            return dict(answers)
        return {"prompt": prompt + self._joint(prompt, answers), **answers}

    def _joint(self, prompt: str, answers: Mapping[str, str]) -> str:
        if self.separator is not None:
            return self.separator
        spaced = prompt[-1:].isspace() or any(answer[:1].isspace() for answer in answers.values())
        return "" if spaced or not answers else SEPARATOR


def row_format(tokenizer: Any, *, separator: str | None = None, template: bool = False) -> RowFormat:
    """Conversations where the model has a chat template, unless `data.separator` asks for plain text.

    An instruct model sees its template when it answers; trained on bare text it would unlearn it.

    Args:
        template: a template is given by other means (`training.chat_template_path`).
    """
    has_template = template or tokenizer.chat_template is not None
    return RowFormat(chat=has_template and separator is None, separator=separator)


def formatted(rows: Iterable[TrainingRow], form: RowFormat) -> Iterator[TrainingRow]:
    """The rows as messages or plain text; columns that no trainer reads are left out. Errors name the row."""
    for number, row in enumerate(rows):
        try:
            yield form.conversation(row)
        except InputError as error:
            raise InputError(f"row {number}: {error}", hint=error.hint) from error


def messages(value: Any, *, role: str) -> list[dict[str, Any]]:
    """`value` as chat messages: a string is one message of `role`; of messages empty fields are left out."""
    if isinstance(value, str):
        return [{"role": role, "content": value}]
    if not isinstance(value, list | tuple) or not value:
        raise InputError(f"{value!r:.80} is neither text nor a list of chat messages")
    found = []
    for message in value:
        if not isinstance(message, Mapping) or "role" not in message or "content" not in message:
            raise InputError(f"{message!r:.80} is not a chat message", hint="write {role: user, content: ...}")
        found.append({key: entry for key, entry in message.items() if entry is not None or key == "content"})
    return found


def _beside(row: TrainingRow) -> TrainingRow:
    """What a chat template is given beside the messages. No tools are left out: some templates would announce them."""
    found = {name: _parsed(row[name], name, kind) for name, kind in BESIDE.items() if row.get(name)}
    return {name: value for name, value in found.items() if value}


def _parsed(given: Any, name: str, kind: type) -> Any:
    """`given`, or what it says as JSON text. Raises InputError when that is of another kind."""
    value = given
    if isinstance(given, str):
        try:
            value = json.loads(given)
        except ValueError:
            value = None
    if not isinstance(value, kind):
        called = "a list" if kind is list else "a mapping"
        raise InputError(f"{name} is {given!r:.80}", hint=f"write {called}, or its JSON text")
    return value


def _needs_template() -> InputError:
    return InputError(
        "the row holds chat messages, but no chat template is in use",
        hint="train a model that has a chat template, leave out data.separator, or give rows of plain text",
    )
