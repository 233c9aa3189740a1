"""Chats in training data: checked, and brought to messages `{role, content}` whatever way they were written."""

from __future__ import annotations

from typing import Any

from mloc_tasks.data.rows import Where, kind_of
from mloc_tasks.errors import InputError

Messages = list[dict[str, Any]]
Content = str | Messages
"""A text, or the messages of a chat."""

_ROLE_OF_SPEAKER = {
    "human": "user",
    "user": "user",
    "prompter": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "assistant": "assistant",
    "system": "system",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
}
"""How `from` of a chat in the form `{from, value}` names its speakers."""


def content_of(value: object, where: Where) -> Content:
    """A text as it is, a number as text, a chat as messages. Raises InputError for anything else."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return messages_of(value, where)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise InputError(f"{where()} is {kind_of(value)}, neither text nor a list of chat messages")


def messages_of(value: object, where: Where) -> Messages:
    """The messages of a chat, without fields that are null. Raises InputError that names the message."""
    if not isinstance(value, list):
        raise InputError(f"{where()} is {kind_of(value)}, not a list of chat messages")
    if not value:
        raise InputError(f"{where()}: the chat has no messages")
    return [_message(message, position, where) for position, message in enumerate(value)]


def starts_conversation(messages: Messages) -> bool:
    """Whether it is a whole conversation, and not the answer that ends one."""
    return bool(messages[0]["role"] != "assistant")


def without_answer(messages: Messages) -> Messages:
    """The conversation up to the assistant's next turn: without the answers at its end."""
    last = len(messages)
    while last and messages[last - 1]["role"] == "assistant":
        last -= 1
    return messages[:last]


def asked(content: Content) -> Messages:
    """A prompt as messages: a text is what the user says."""
    return [{"role": "user", "content": content}] if isinstance(content, str) else content


def answered(content: Content) -> Messages:
    """An answer as messages: a text is what the assistant says."""
    return [{"role": "assistant", "content": content}] if isinstance(content, str) else content


def _message(message: object, position: int, where: Where) -> dict[str, Any]:
    if isinstance(message, dict):
        # Tables give every message all the keys that any message has.
        given = {key: value for key, value in message.items() if value is not None}
        role, content = given.get("role"), given.get("content")
        if isinstance(role, str) and role:
            if isinstance(content, str | list):
                return given
            if content is None and (given.get("tool_calls") or given.get("function_call")):
                return {**given, "content": ""}
        elif "from" in given and "value" in given:
            return _from_speaker(given, position, where)
    raise InputError(
        f"{where()}: message {position} of the chat is not a mapping with a role and a content",
        hint='write each message as {"role": "user", "content": "..."}',
    )


def _from_speaker(message: dict[str, Any], position: int, where: Where) -> dict[str, Any]:
    role = _ROLE_OF_SPEAKER.get(str(message["from"]).lower())
    if role is None or not isinstance(message["value"], str):
        known = ", ".join(dict.fromkeys(_ROLE_OF_SPEAKER))
        raise InputError(
            f"{where()}: message {position} of the chat is from {message['from']!r}",
            hint=f"`from` is one of {known}; or write messages as {{role, content}}",
        )
    return {"role": role, "content": message["value"]}
