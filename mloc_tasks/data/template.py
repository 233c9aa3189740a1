"""`graph_template`: one prompt per row, joined from the results of several stages.

Each column is `{label, node, path}`: `node` a stage, `path` a place in its result, such as

    items[*].output    (also items.output, items; the default)  the outputs of all its items: one row each
    items[3].output    (also items[3])  a field of one item: the same in every row
    usage.total_tokens, metrics.loss                   any field of `responses.json`: the same in every row,
                       or, where it is a list, one row for each of its elements

(`result.` before it is allowed, as in references). Columns with rows are zipped, row by row, and must have equally
many; if none has rows there is one prompt. A prompt is a block per column, in the order given, joined by blank lines
(without a label: the bare value):

    Question:
    What is the capital of France?

    Draft:
    Paris.

A row of which any part failed upstream is left out (see `upstream.py`).
"""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from typing import Any

from mloc_tasks.data.items import ItemReader
from mloc_tasks.data.rows import PromptReading, Reading
from mloc_tasks.data.upstream import UpstreamRows
from mloc_tasks.errors import InputError
from mloc_tasks.executors.base import Row

DEFAULT_PATH = "items[*].output"


@dataclass(frozen=True)
class Column:
    """One block of the prompt: what it is headed, and where its text comes from."""

    label: str
    node: str
    path: str = DEFAULT_PATH


class TemplateRows(UpstreamRows):
    """The prompts of a `graph_template`.

    Raises InputError when a path names nothing, or columns have different numbers of rows.
    """

    def __init__(
        self, columns: Sequence[Column], upstream: Callable[[str], ItemReader], *, reading: Reading | None = None
    ) -> None:
        super().__init__()
        readers = {node: upstream(node) for node in dict.fromkeys(column.node for column in columns)}
        self._reading = reading or PromptReading()
        self._labels = [column.label for column in columns]
        self._values = [_values(column, readers[column.node]) for column in columns]
        self._rows = _common_length(columns, self._values)

    def _length(self) -> int:
        return self._rows

    def _may_have_failures(self) -> bool:
        return any(values.may_have_failures() for values in self._values)

    def _from(self, position: int) -> Iterator[Row | None]:
        streams = [values.start(position) for values in self._values]
        for number in range(position, self._rows):
            texts = [next(stream) for stream in streams]
            if any(text is None for text in texts):
                yield None
            else:
                blocks = zip(self._labels, texts, strict=True)
                prompt = "\n\n".join(f"{label}:\n{text}" if label else str(text) for label, text in blocks)
                yield self._reading.row(prompt, partial("graph_template, row {}".format, number))


class _Values(ABC):
    """The text of one column in each row; None where it failed upstream."""

    length: int | None = None  # None: the same in every row

    @abstractmethod
    def start(self, position: int) -> Iterator[str | None]: ...

    def may_have_failures(self) -> bool:
        return False


class _Same(_Values):
    def __init__(self, value: Any) -> None:
        self._text = _text(value)

    def start(self, position: int) -> Iterator[str | None]:
        return repeat(self._text)


class _Listed(_Values):
    def __init__(self, values: list[Any]) -> None:
        self._list = values
        self.length = len(values)

    def start(self, position: int) -> Iterator[str | None]:
        return map(_text, self._list[position:])


class _Items(_Values):
    def __init__(self, reader: ItemReader, path: list[str | int], column: Column) -> None:
        self._reader = reader
        self._path = path
        self._column = column
        self.length = len(reader)

    def start(self, position: int) -> Iterator[str | None]:
        for item in self._reader.items(position):
            yield None if item.get("ok") is False else _text(_at(item, self._path, self._column))

    def may_have_failures(self) -> bool:
        return self._reader.failed > 0


def _values(column: Column, reader: ItemReader) -> _Values:
    path = _parse(column)
    if path[0] != "items":
        value = _at(reader.document, path, column)
        return _Listed(value) if isinstance(value, list) else _Same(value)
    if len(path) < 2 or not isinstance(path[1], int):
        return _Items(reader, (path[2:] if path[1:2] == ["*"] else path[1:]) or ["output"], column)
    number = path[1] if path[1] >= 0 else len(reader) + path[1]
    item = next(reader.items(number, number + 1), None) if number >= 0 else None
    if item is None:
        raise InputError(f"{_place(column)}: {column.node!r} has {len(reader)} items")
    if item.get("ok") is False:
        raise InputError(
            f"{_place(column)}: this item of {column.node!r} failed: {item.get('error', 'no error given')}"
        )
    return _Same(_at(item, path[2:] or ["output"], column))


def _common_length(columns: Sequence[Column], values: Sequence[_Values]) -> int:
    lengths = {
        column.label: each.length for column, each in zip(columns, values, strict=True) if each.length is not None
    }
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{label!r} has {length}" for label, length in lengths.items())
        raise InputError(
            f"graph_template: columns with different numbers of rows: {listed}",
            hint="columns are joined row by row; pick one item with a path like items[0].output to repeat it",
        )
    return next(iter(lengths.values()), 1)


def _parse(column: Column) -> list[str | int]:
    path = re.sub(r"\[(-?\d+|\*)\]", r".\1", column.path.strip() or DEFAULT_PATH)
    steps = [int(step) if re.fullmatch(r"-?\d+", step) else step for step in path.split(".")]
    if steps[0] == "result" and len(steps) > 1:
        steps = steps[1:]
    if "" in steps or "[" in path or "]" in path or "*" in steps[2:] or (steps[0] != "items" and "*" in steps):
        raise InputError(f"{_place(column)}: not a path", hint=f"write it like {DEFAULT_PATH} or usage.total_tokens")
    return steps


def _at(value: Any, path: Sequence[str | int], column: Column) -> Any:
    for step in path:
        if isinstance(value, dict) and step in value:
            value = value[step]
        elif isinstance(value, list) and step in range(-len(value), len(value)):
            value = value[int(step)]
        else:
            raise InputError(
                f"{_place(column)}: no {step!r} in the result of {column.node!r}; there is {_contents(value)}"
            )
    return value


def _contents(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(value) or "nothing"
    return f"a list of {len(value)}" if isinstance(value, list) else "a single value"


def _place(column: Column) -> str:
    return f"graph_template, column {column.label!r}, path {column.path!r}"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
