"""A stage's inputs: the source that its spec names, as rows that can be counted, sliced and streamed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, BinaryIO

from mloc_tasks.data.inline import InlineRows
from mloc_tasks.data.items import ItemReader
from mloc_tasks.data.source import RowSource
from mloc_tasks.errors import InputError
from mloc_tasks.executors.base import Item

if TYPE_CHECKING:
    from mloc_tasks.spec import StageSpec


class RowSlice:
    """The rows of one shard; each iteration streams them anew."""

    def __init__(self, source: RowSource, start: int, stop: int, offset: int | None = None) -> None:
        self._source = source
        self.start = start
        self._stop = stop
        self._offset = offset

    def __len__(self) -> int:
        return self._stop - self.start

    def __iter__(self) -> Iterator[Item]:
        return self._source.rows(self.start, self._stop, self._offset)


class Inputs:
    """All rows of a stage's input."""

    def __init__(self, source: RowSource) -> None:
        self._source = source
        self._count: int | None = None

    def count(self) -> int:
        """The number of rows, without loading them."""
        if self._count is None:
            self._count = self._source.count()
        return self._count

    def offsets(self, starts: Sequence[int]) -> list[int | None]:
        """For each ascending start of a slice, what `slice` takes as `offset` to begin there at once; None: no way.

        One pass over the input at most, so ask for all slices in one call.
        """
        return self._source.offsets(starts)

    def slice(self, start: int, stop: int, offset: int | None = None) -> RowSlice:
        """Rows `start` to `stop`; with `offset` (see `offsets`) without reading those before."""
        return RowSlice(self._source, start, stop, offset)

    @property
    def skipped(self) -> int:
        """Upstream items left out because they failed (`ok: false`)."""
        self.count()
        return self._source.skipped


def open_inputs(
    spec: StageSpec,
    *,
    upstream: Callable[[str], ItemReader],
    open_url: Callable[[str], BinaryIO] | None = None,
) -> Inputs:
    """The inputs that a stage's spec asks for.

    Args:
        spec: the stage, its references resolved.
        upstream: the result of another stage of the run, by name.
        open_url: opens `s3://` and `http(s)://` addresses; default `mloc_tasks.artifacts.open_url`.

    Raises InputError when the stage names no inputs, or none that can be read.
    """
    inference, data = spec.inference, spec.data
    if data is None:
        if inference is not None and inference.prompts is not None:
            return Inputs(InlineRows(inference.prompts, path="spec.inference.prompts"))
        raise InputError("the stage has no inputs", hint="give it `data`, or `inference.prompts`")
    if getattr(data, "prompts", None) is not None:
        return Inputs(InlineRows(data.prompts, path="spec.data.prompts", column=getattr(data, "column", None)))
    if getattr(data, "items", None) is not None:
        return Inputs(InlineRows(data.items, path="spec.data.items", column=getattr(data, "column", None)))
    raise InputError(f"data of type {getattr(data, 'type', '?')!r} gives no rows")
