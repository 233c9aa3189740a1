"""`shuffle`, `seed` and `max_samples`, for sources that cannot do them themselves."""

from __future__ import annotations

import json
import random
import tempfile
from array import array
from collections.abc import Iterator, Sequence

from mloc_tasks.data.source import RowSource
from mloc_tasks.executors.base import Row


class FirstRows(RowSource):
    """The first `limit` rows of a source; the rest is neither counted nor read."""

    def __init__(self, source: RowSource, limit: int) -> None:
        self._source = source
        self._limit = limit

    def count(self, limit: int | None = None) -> int:
        return self._source.count(self._limit if limit is None else min(limit, self._limit))

    def rows(self, start: int, stop: int, offset: int | None = None) -> Iterator[Row]:
        return self._source.rows(start, min(stop, self._limit), offset)

    def offsets(self, starts: Sequence[int]) -> list[int | None]:
        return self._source.offsets(starts)

    @property
    def skipped(self) -> int:
        return self._source.skipped


class ShuffledRows(RowSource):
    """A source's rows in an order that `seed` decides, the same on every worker.

    Memory: 8 bytes for each row of the source. A slice reads its source once and spools the rows that belong to it in
    a temporary file, so that a slice of any size is streamed.
    """

    def __init__(self, source: RowSource, seed: int) -> None:
        self._source = source
        self._seed = seed
        self._order: array[int] | None = None

    def count(self, limit: int | None = None) -> int:
        return self._source.count(limit)

    @property
    def skipped(self) -> int:
        return self._source.skipped

    def rows(self, start: int, stop: int, offset: int | None = None) -> Iterator[Row]:
        positions = self._permutation()[start:stop]
        by_position = sorted(range(len(positions)), key=positions.__getitem__)
        places = array("Q", bytes(8 * len(positions)))
        with tempfile.TemporaryFile() as spool:
            wanted = iter(by_position)
            rank = next(wanted, None)
            end = 0
            last = positions[by_position[-1]] + 1 if by_position else 0
            for position, row in enumerate(self._source.rows(0, last)):
                if rank is None or position != positions[rank]:
                    continue
                places[rank] = end
                end += spool.write(json.dumps(row).encode() + b"\n")
                rank = next(wanted, None)
            for place in places:
                spool.seek(place)
                yield json.loads(spool.readline())

    def _permutation(self) -> array[int]:
        if self._order is None:
            order = array("Q", range(self._source.count()))
            random.Random(self._seed).shuffle(order)
            self._order = order  # only now: another thread may be asking for a slice of its own
        return self._order
