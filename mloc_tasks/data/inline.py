"""Rows written in the spec itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from mloc_tasks.data.rows import PromptReading, Reading
from mloc_tasks.data.source import RowSource
from mloc_tasks.executors.base import Row


class InlineRows(RowSource):
    """`data.prompts`, `inference.prompts`, `{type: list, items}` or `preferences`: strings, chats, or mappings.

    Args:
        rows: the list.
        path: where it stands in the spec, for errors.
        reading: what is made of each row.
    """

    def __init__(self, rows: Sequence[object], *, path: str, reading: Reading | None = None) -> None:
        self._rows = rows
        self._path = path
        self._reading = reading or PromptReading()

    def count(self, limit: int | None = None) -> int:
        return len(self._rows) if limit is None else min(len(self._rows), limit)

    def rows(self, start: int, stop: int, offset: int | None = None) -> Iterator[Row]:
        for position in range(start, min(stop, len(self._rows))):
            yield self._reading.row(self._rows[position], partial("{}[{}]".format, self._path, position))
