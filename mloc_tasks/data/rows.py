"""From one row of data (a string, a mapping of columns, a chat) to what an executor is given."""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any

from mloc_tasks.errors import InputError
from mloc_tasks.executors.base import Item, Row

Where = Callable[[], str]
"""Says, for an error, which row it is: `rows.jsonl, line 7`."""

PROMPT_COLUMNS = ("messages", "prompt", "text")
"""Columns taken, in this order, when `data.column` is not given. A row with a single column needs none of them."""


class Reading(ABC):
    """What is made of each row of a source, whichever kind of source it is."""

    @abstractmethod
    def columns(self, names: list[str], where: Where) -> list[str]:
        """Which columns of a table to read. Raises InputError when one that is needed is not among `names`."""

    @abstractmethod
    def row(self, value: object, where: Where) -> Row:
        """What is given for `value`: text, a chat, or a mapping of (at least) those columns.

        Raises InputError that says which row cannot be used, and why.
        """


class PromptReading(Reading):
    """Rows as prompts: text or a chat.

    Args:
        column: the prompt column of rows that are mappings; None: `messages`, `prompt`, `text`, or the only one.
    """

    def __init__(self, column: str | None = None) -> None:
        self._column = column

    def columns(self, names: list[str], where: Where) -> list[str]:
        return [prompt_column(names, self._column, where)]

    def row(self, value: object, where: Where) -> Item:
        return item_of(value, self._column, where)


def item_of(row: object, column: str | None, where: Where) -> Item:
    """The item in `row`: the row itself when it is text or a chat, else the value of its prompt column.

    Raises InputError when the row has no such column, or the value is neither text, a number, nor a list of chat
    messages.
    """
    if isinstance(row, dict):
        name = column if column in row else prompt_column(row, column, where)
        value = row[name]
        return value if isinstance(value, str) else _item(value, lambda: f"{where()}, column {name!r}")
    return _item(row, where)


def prompt_column(columns: Iterable[str], column: str | None, where: Where) -> str:
    """The name among `columns` that holds the prompt: `column`, or the usual one when that is None."""
    names = list(columns)
    if column is not None:
        return named_column(names, column, where, key="column")
    for name in PROMPT_COLUMNS:
        if name in names:
            return name
    if len(names) == 1:
        return names[0]
    raise InputError(
        f"{where()}: which column holds the prompt? The columns are {listed(names)}",
        hint="set data.column to one of them",
    )


def named_column(names: list[str], column: str, where: Where, *, key: str) -> str:
    """`column`, which `data.<key>` names. Raises InputError when it is not among `names`."""
    if column in names:
        return column
    near = difflib.get_close_matches(column, names, n=1)
    raise InputError(
        f"{where()}: no column {column!r}; the columns are {listed(names)}",
        hint=f"did you mean data.{key}: {near[0]}" if near else f"set data.{key} to one of them",
    )


def listed(names: Iterable[str], most: int = 20) -> str:
    """Names for an error, the first `most` of them."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(map(repr, names[:most])) or "none") + more


def kind_of(value: object) -> str:
    """What an error calls a value that is of no use: `empty (null)`, `a mapping`."""
    if value is None:
        return "empty (null)"
    name = type(value).__name__
    return {"dict": "a mapping", "list": "a list", "bool": "a truth value", "bytes": "bytes"}.get(
        name, f"of type {name}"
    )


def _item(value: Any, where: Where) -> Item:
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, list):
        return _messages(value, where)
    raise InputError(f"{where()}: a prompt is text or a list of chat messages; this is {kind_of(value)}")


def _messages(value: list[Any], where: Where) -> list[dict[str, Any]]:
    for position, message in enumerate(value):
        if not (isinstance(message, dict) and isinstance(message.get("role"), str) and "content" in message):
            raise InputError(
                f"{where()}: message {position} of the chat is not a mapping with a role and a content",
                hint='write each message as {"role": "user", "content": "..."}',
            )
    if not value:
        raise InputError(f"{where()}: the chat has no messages")
    return value
