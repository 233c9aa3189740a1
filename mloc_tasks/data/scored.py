"""What a stage of task type `evaluate` reads: whole items beside the answers that were expected of them.

Items and references are matched by position. Failed upstream items keep theirs, so that nothing shifts; it is the
executor that decides what they count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from mloc_tasks.data.dataset import DatasetRows
from mloc_tasks.data.files import FileRows
from mloc_tasks.data.inline import InlineRows
from mloc_tasks.data.items import ItemReader
from mloc_tasks.data.locate import OpenUrl
from mloc_tasks.data.rows import PromptReading
from mloc_tasks.data.selection import FirstRows, ShuffledRows
from mloc_tasks.data.source import RowSource
from mloc_tasks.errors import InputError, UnresolvedReferenceError
from mloc_tasks.spec.expressions import get_path
from mloc_tasks.spec.model.data import DatasetData, FileData, ListData, StageData
from mloc_tasks.spec.model.evaluate import Evaluate, References, parse_item_path

if TYPE_CHECKING:
    from mloc_tasks.spec import StageSpec

Values = Callable[[int, int], Iterator[Any]]
"""The values at positions `start` to `stop`, streamed."""


class ScoredRows(RowSource):
    """Rows `{"item": {...}, "reference": ...}`; without references `{"item": {...}}`.

    Args:
        items: what is scored.
        length: how many items there are.
        references: the expected answers where they stand beside the items, and how many they are.
        inside: finds the expected answer in an item, where that is where it stands.
    """

    def __init__(
        self,
        items: Values,
        length: Callable[[], int],
        *,
        references: tuple[Values, Callable[[], int]] | None = None,
        inside: Callable[[int, Any], Any] | None = None,
    ) -> None:
        self._items = items
        self._length = length
        self._references = references
        self._inside = inside

    def count(self, limit: int | None = None) -> int:
        """Raises InputError when there are more, or fewer, references than items."""
        total = self._length()
        expected = total if self._references is None else self._references[1]()
        if expected != total:
            raise InputError(
                f"evaluate.references: {expected} references for {total} items; they are matched by position",
                hint="give as many as the stage under `data` has items, failed ones counted, in their order; or take "
                "them out of the items by evaluate.reference_path",
            )
        return total if limit is None else min(total, limit)

    def rows(self, start: int, stop: int, offset: int | None = None) -> Iterator[Any]:
        # Whole items are no prompts; only the executor that scores them sees these rows.
        items = self._items(start, stop)
        if self._references is not None:
            for item, reference in zip(items, self._references[0](start, stop), strict=False):
                yield {"item": item, "reference": reference}
        elif self._inside is not None:
            for position, item in enumerate(items, start):
                yield {"item": item, "reference": self._inside(position, item)}
        else:
            yield from ({"item": item} for item in items)


def scored_rows(
    spec: StageSpec, *, upstream: Callable[[str], ItemReader], open_url: OpenUrl | None = None
) -> ScoredRows:
    """The rows of an `evaluate` stage, all of its `data`.

    Raises InputError for `data` that hold no answers, and while reading for an item without its reference.
    """
    data, evaluate = spec.data, spec.evaluate
    if evaluate is None:
        raise InputError("the stage does not say what it measures", hint="give it `evaluate: {metrics: [...]}`")
    references = _references(evaluate, open_url)
    path = evaluate.reference_path
    if isinstance(data, StageData):
        reader = upstream(data.stage)
        inside = None if path is None else partial(_inside, parse_item_path(path), reader.origin)
        return ScoredRows(reader.items, lambda: len(reader), references=references, inside=inside)
    if not isinstance(data, ListData | FileData | DatasetData):
        kind = "none" if data is None else f"of type {data.type}"
        raise InputError(f"data {kind} hold no answers to score", hint="write data: {type: stage, stage: NAME}")
    answers = _column(data, data.column or data.prompt_column, open_url)
    if path is not None:
        source = _column(data, path, open_url)
        references = source.rows, source.count
    return ScoredRows(partial(_as_items, answers), answers.count, references=references)


def _references(evaluate: Evaluate, open_url: OpenUrl | None) -> tuple[Values, Callable[[], int]] | None:
    given = evaluate.references
    if given is None:
        return None
    if given.type == "list":
        values = given.items
        return (lambda start, stop: iter(values[start:stop])), (lambda: len(values))
    source = _stored(given, open_url)
    if given.shuffle:
        source = ShuffledRows(source, given.seed or 0)
    if given.max_samples is not None:
        source = FirstRows(source, given.max_samples)
    return source.rows, source.count


def _stored(given: References, open_url: OpenUrl | None) -> RowSource:
    url, reading = given.url or "", PromptReading(given.column)
    if given.type == "file":
        return FileRows(url, format=given.format, reading=reading, open_url=open_url)
    return DatasetRows(url, config=given.name, split=given.split, revision=given.revision, reading=reading)


def _column(data: ListData | FileData | DatasetData, column: str | None, open_url: OpenUrl | None) -> RowSource:
    """One column of all rows; `shuffle` and `max_samples` choose later, among answers with their references."""
    reading = PromptReading(column)
    if isinstance(data, ListData):
        return InlineRows(data.items, path="spec.data.items", reading=reading)
    if isinstance(data, FileData):
        return FileRows(data.url, format=data.format, reading=reading, open_url=open_url)
    return DatasetRows(data.url, config=data.name, split=data.split, revision=data.revision, reading=reading)


def _as_items(source: RowSource, start: int, stop: int) -> Iterator[dict[str, Any]]:
    for position, row in enumerate(source.rows(start, stop), start):
        yield {"index": position, "output": row}


def _inside(path: tuple[str | int, ...], origin: str, position: int, item: dict[str, Any]) -> Any:
    """The expected answer in an item; None in a failed one, which may have nothing."""
    if item.get("ok") is False:
        return None
    try:
        return get_path(item, path)
    except UnresolvedReferenceError as error:
        raise InputError(f"{origin}, item {position}: evaluate.reference_path: {error}") from error
