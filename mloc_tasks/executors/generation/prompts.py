"""From an input row to the tokens that the model continues."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mloc_tasks.errors import ExecutionError
from mloc_tasks.executors.base import Item

if TYPE_CHECKING:
    from mloc_tasks.spec.model.inference import Inference


class RowError(Exception):
    """One row cannot be done; the message goes into its item and the others go on."""


@dataclass(frozen=True, kw_only=True)
class PromptEncoder:
    """Renders and tokenizes rows.

    Attributes:
        tokenizer: a Transformers tokenizer.
        chat: use the model's chat template.
        system_prompt: put before each row; a row with a system message of its own keeps that instead.
        context_length: tokens that prompt and completion may have together; None when the model does not say.
    """

    tokenizer: Any
    chat: bool
    system_prompt: str | None
    context_length: int | None

    def encode(self, row: Item) -> list[int]:
        """Token ids of `row`. Raises RowError for a row that is malformed, empty or longer than the context."""
        ids = self._chat_ids(row) if self.chat else self._raw_ids(row)
        if not ids:
            raise RowError("the prompt is empty: there is nothing to continue")
        if self.context_length is not None and len(ids) >= self.context_length:
            raise RowError(f"the prompt has {len(ids)} tokens, no room in a context of {self.context_length}")
        return ids

    def _raw_ids(self, row: Item) -> list[int]:
        if not isinstance(row, str):
            raise RowError("the row is a list of chat messages, but no chat template is in use; give a string")
        text = row if self.system_prompt is None else f"{self.system_prompt}\n\n{row}"
        return list(self.tokenizer(text)["input_ids"])

    def _chat_ids(self, row: Item) -> list[int]:
        from jinja2 import TemplateError

        messages = _messages(row)
        if self.system_prompt is not None and not any(each.get("role") == "system" for each in messages):
            messages = [{"role": "system", "content": self.system_prompt}, *messages]
        try:
            text = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        except (TemplateError, TypeError, ValueError, KeyError, AttributeError) as error:
            raise RowError(f"the model's chat template refused the row: {error}") from error
        # The template writes the special tokens itself.
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])


def encoder_for(
    inference: Inference | None, tokenizer: Any, *, model: str, context_length: int | None
) -> PromptEncoder:
    """The encoder that a stage's `inference` block asks for; silent about `chat`, it depends on the model.

    Raises ExecutionError for `chat: true` with a model that has none.
    """
    chat = None if inference is None else inference.chat
    has_template = tokenizer.chat_template is not None
    if chat and not has_template:
        raise ExecutionError(f"inference.chat is true, but the model {model} has no chat template")
    return PromptEncoder(
        tokenizer=tokenizer,
        chat=has_template if chat is None else chat,
        system_prompt=None if inference is None else inference.system_prompt,
        context_length=context_length,
    )


def _messages(row: Item) -> list[dict[str, Any]]:
    if isinstance(row, str):
        return [{"role": "user", "content": row}]
    if not row:
        raise RowError("the row is an empty list of messages")
    for position, message in enumerate(row):
        if not isinstance(message, Mapping) or "role" not in message or "content" not in message:
            raise RowError(f"message {position} of the row is not an object with 'role' and 'content'")
    return list(row)
