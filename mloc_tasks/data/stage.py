"""An upstream stage's outputs as rows."""

from __future__ import annotations

from collections.abc import Iterator

from mloc_tasks.data.items import ItemReader
from mloc_tasks.data.rows import item_of
from mloc_tasks.data.upstream import UpstreamRows
from mloc_tasks.executors.base import Item


class StageRows(UpstreamRows):
    """`{type: stage, stage: NAME}`: each row is the `output` (or another field) of one of that stage's items."""

    def __init__(self, reader: ItemReader, *, field: str = "output") -> None:
        super().__init__()
        self._reader = reader
        self._field = field

    def _length(self) -> int:
        return len(self._reader)

    def _may_have_failures(self) -> bool:
        return self._reader.failed > 0

    def _from(self, position: int) -> Iterator[Item | None]:
        for number, item in enumerate(self._reader.items(position), position):
            if item.get("ok") is False:
                yield None
            else:
                yield item_of(item, self._field, lambda at=number: f"{self._reader.origin}, item {at}")  # type: ignore[misc]
