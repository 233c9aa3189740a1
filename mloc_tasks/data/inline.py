"""Rows written in the spec itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mloc_tasks.data.rows import item_of
from mloc_tasks.data.source import RowSource
from mloc_tasks.executors.base import Item


class InlineRows(RowSource):
    """`data.prompts`, `inference.prompts` or `{type: list, items}`: strings, chats, or mappings with a prompt column.

    Args:
        rows: the list.
        path: where it stands in the spec, for errors.
        column: the prompt column of rows that are mappings.
    """

    def __init__(self, rows: Sequence[object], *, path: str, column: str | None = None) -> None:
        self._rows = rows
        self._path = path
        self._column = column

    def count(self, limit: int | None = None) -> int:
        return len(self._rows) if limit is None else min(len(self._rows), limit)

    def rows(self, start: int, stop: int, offset: int | None = None) -> Iterator[Item]:
        for position in range(start, min(stop, len(self._rows))):
            yield item_of(self._rows[position], self._column, lambda at=position: f"{self._path}[{at}]")  # type: ignore[misc]
