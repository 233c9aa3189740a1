"""Rows made of other stages' items: failed ones are left out, which shifts all that follow."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from itertools import islice

from mloc_tasks.data.source import RowSource
from mloc_tasks.executors.base import Row

logger = logging.getLogger(__name__)


class UpstreamRows(RowSource):
    """Rows that are computed from upstream items, one from each position, None where the upstream item failed.

    A failed item has no output to ask about, so its position gives no row: row 5 here may come from upstream item 7.
    How many were left out is logged once and kept in `skipped`. Offsets are upstream positions.
    """

    def __init__(self) -> None:
        self._skipped: int | None = None

    @abstractmethod
    def _length(self) -> int:
        """The number of upstream positions, failed ones included."""

    @abstractmethod
    def _may_have_failures(self) -> bool:
        """False when every position gives a row, so that none has to be looked at to count them."""

    @abstractmethod
    def _from(self, position: int) -> Iterator[Row | None]:
        """The row of each upstream position from `position` on."""

    @property
    def skipped(self) -> int:
        return self._skipped or 0

    def count(self, limit: int | None = None) -> int:
        total = self._length()
        kept = total
        if self._may_have_failures():
            kept = sum(item is not None for item in self._from(0))
        if self._skipped is None and kept < total:
            logger.warning("%d of %d upstream items failed and give no row here", total - kept, total)
        self._skipped = total - kept
        return kept if limit is None else min(kept, limit)

    def rows(self, start: int, stop: int, offset: int | None = None) -> Iterator[Row]:
        if offset is None and not self._may_have_failures():
            offset = start
        if offset is None:
            yield from islice(self._kept(0), start, stop)
        else:
            yield from islice(self._kept(offset), stop - start)

    def offsets(self, starts: Sequence[int]) -> list[int | None]:
        if not self._may_have_failures():
            return list(starts)
        found: dict[int, int] = {}
        wanted = set(starts)
        row = 0
        for position, item in enumerate(self._from(0)):
            if item is None:
                continue
            if row in wanted:
                found[row] = position
            row += 1
        return [found.get(start) for start in starts]

    def _kept(self, position: int) -> Iterator[Row]:
        return (item for item in self._from(position) if item is not None)
