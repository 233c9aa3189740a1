"""What every kind of input is: an ordered sequence of rows that can be counted and streamed from anywhere."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

from mloc_tasks.executors.base import Row


class RowSource(ABC):
    """Rows in a fixed order. Two sources made from the same description give the same rows, on any worker."""

    @abstractmethod
    def count(self, limit: int | None = None) -> int:
        """The number of rows, found without holding them; counting may stop at `limit`, which is then the answer."""

    @abstractmethod
    def rows(self, start: int, stop: int, offset: int | None = None) -> Iterator[Row]:
        """The rows at positions `start` to `stop`, streamed.

        `offset` is what `offsets` said for `start`; with it the source begins there instead of reading up to it.
        """

    def offsets(self, starts: Sequence[int]) -> list[int | None]:
        """For each of the ascending positions a number that lets `rows` begin there directly; None where it has none.

        What the number counts (bytes, upstream items) is the source's own affair.
        """
        return [None] * len(starts)

    @property
    def skipped(self) -> int:
        """Upstream rows that are left out because they failed; known once `count` was called."""
        return 0
