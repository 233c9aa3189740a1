"""From one row of data (a string, a mapping of columns, a chat) to the item that a model is asked."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from typing import Any

from mloc_tasks.errors import InputError
from mloc_tasks.executors.base import Item

PROMPT_COLUMNS = ("messages", "prompt", "text")
"""Columns taken, in this order, when `data.column` is not given. A row with a single column needs none of them."""


def item_of(row: object, column: str | None, where: Callable[[], str]) -> Item:
    """The item in `row`: the row itself when it is text or a chat, else the value of its prompt column.

    `where` says, for an error, which row this is. Raises InputError when the row has no such column, or the value is
    neither text, a number, nor a list of chat messages.
    """
    if isinstance(row, dict):
        name = column if column in row else prompt_column(row, column, where)
        value = row[name]
        return value if isinstance(value, str) else _item(value, lambda: f"{where()}, column {name!r}")
    return _item(row, where)


def prompt_column(columns: Iterable[str], column: str | None, where: Callable[[], str]) -> str:
    """The name among `columns` that holds the prompt: `column`, or the usual one when that is None."""
    names = list(columns)
    if column is not None:
        if column in names:
            return column
        near = difflib.get_close_matches(column, names, n=1)
        raise InputError(
            f"{where()}: no column {column!r}; the columns are {_listed(names)}",
            hint=f"did you mean data.column: {near[0]}" if near else "set data.column to one of them",
        )
    for name in PROMPT_COLUMNS:
        if name in names:
            return name
    if len(names) == 1:
        return names[0]
    raise InputError(
        f"{where()}: which column holds the prompt? The columns are {_listed(names)}",
        hint="set data.column to one of them",
    )


def _item(value: Any, where: Callable[[], str]) -> Item:
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, list):
        return _messages(value, where)
    what = "is empty (null)" if value is None else f"is {_kind(value)}"
    raise InputError(f"{where()}: a prompt is text or a list of chat messages; this {what}")


def _messages(value: list[Any], where: Callable[[], str]) -> list[dict[str, Any]]:
    for position, message in enumerate(value):
        if not (isinstance(message, dict) and isinstance(message.get("role"), str) and "content" in message):
            raise InputError(
                f"{where()}: message {position} of the chat is not a mapping with a role and a content",
                hint='write each message as {"role": "user", "content": "..."}',
            )
    if not value:
        raise InputError(f"{where()}: the chat has no messages")
    return value


def _kind(value: object) -> str:
    return {"dict": "a mapping", "bool": "a truth value", "bytes": "bytes"}.get(type(value).__name__, repr(type(value)))


def _listed(names: list[str], most: int = 20) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(map(repr, names[:most])) or "none") + more
