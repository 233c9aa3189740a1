"""A stage's inputs: the source that its spec names, as rows that can be counted, sliced and streamed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, BinaryIO

from mloc_tasks.data.dataset import DatasetRows
from mloc_tasks.data.files import FileRows
from mloc_tasks.data.inline import InlineRows
from mloc_tasks.data.items import ItemReader
from mloc_tasks.data.rows import PromptReading, Reading
from mloc_tasks.data.scored import scored_rows
from mloc_tasks.data.selection import FirstRows, ShuffledRows
from mloc_tasks.data.source import RowSource
from mloc_tasks.data.stage import StageRows
from mloc_tasks.data.template import Column, TemplateRows
from mloc_tasks.data.training_rows import training_reading
from mloc_tasks.errors import InputError
from mloc_tasks.executors.base import Row
from mloc_tasks.spec.model.data import Columns, DatasetData, FileData, GraphTemplateData, ListData, Selection, StageData

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

    def __iter__(self) -> Iterator[Row]:
        """Raises InputError after the last row when there are fewer than there were when they were counted."""
        number = 0
        for row in self._source.rows(self.start, self._stop, self._offset):
            yield row
            number += 1
        if number < len(self):
            raise InputError(
                f"the input ends after row {self.start + number}, not {self._stop}: changed since it was counted",
                hint="leave input files alone while a run reads them, and submit the run again",
            )


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
    data = spec.data
    if data is None:
        raise InputError("the stage has no inputs", hint="give it `data`, or `inference.prompts`")
    if spec.task_type == "evaluate":
        return Inputs(_chosen(scored_rows(spec, upstream=upstream, open_url=open_url), data))
    trains = training_reading(spec.task_type, data)
    column = data.column or data.prompt_column
    reading = trains or PromptReading(column)
    if isinstance(data, GraphTemplateData):
        columns = [Column(column.label, column.node, column.path) for column in data.template.columns]
        return Inputs(TemplateRows(columns, upstream, reading=reading))
    if isinstance(data, DatasetData):
        return Inputs(_dataset(data, reading))
    source: RowSource
    if isinstance(data, ListData):
        source = InlineRows(data.items, path="spec.data.items", reading=reading)
    elif isinstance(data, FileData):
        source = FileRows(data.url, format=data.format, reading=reading, open_url=open_url)
    elif isinstance(data, StageData):
        # A model is asked what the stage before it said; it is trained on what that was asked and said.
        source = StageRows(upstream(data.stage), reading=trains or PromptReading(column or "output"))
    elif trains is not None:
        pairs = [pair.model_dump() for pair in data.preferences]
        source = InlineRows(pairs, path="spec.data.preferences", reading=reading)
    else:
        raise InputError(
            f"data of type {data.type} are no inputs of a {spec.task_type} stage",
            hint="preference pairs are training data; give prompts, a file, a dataset or a stage",
        )
    return Inputs(_chosen(source, data))


def _chosen(source: RowSource, data: Columns) -> RowSource:
    if not isinstance(data, Selection):
        return source
    if data.shuffle:
        source = ShuffledRows(source, data.seed or 0)
    return source if data.max_samples is None else FirstRows(source, data.max_samples)


def _dataset(data: DatasetData, reading: Reading) -> DatasetRows:
    return DatasetRows(
        data.url,
        config=data.name,
        split=data.split,
        revision=data.revision,
        reading=reading,
        shuffle_seed=(data.seed or 0) if data.shuffle else None,
        max_samples=data.max_samples,
    )
