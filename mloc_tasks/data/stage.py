"""An upstream stage's items as rows."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from mloc_tasks.data.items import ItemReader
from mloc_tasks.data.rows import PromptReading, Reading
from mloc_tasks.data.upstream import UpstreamRows
from mloc_tasks.executors.base import Row


class StageRows(UpstreamRows):
    """`{type: stage, stage: NAME}`: each row is made of one of that stage's items; by default it is its `output`."""

    def __init__(self, reader: ItemReader, *, reading: Reading | None = None) -> None:
        super().__init__()
        self._reader = reader
        self._reading = reading or PromptReading("output")

    def _length(self) -> int:
        return len(self._reader)

    def _may_have_failures(self) -> bool:
        return self._reader.failed > 0

    def _from(self, position: int) -> Iterator[Row | None]:
        for number, item in enumerate(self._reader.items(position), position):
            if item.get("ok") is False:
                yield None
            else:
                yield self._reading.row(item, partial("{}, item {}".format, self._reader.origin, number))
