"""A dataset of the hub, or of a local folder, through the `datasets` library: rows stay on disk, memory-mapped."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cached_property, partial
from typing import Any

from mloc_tasks.data.formats import EXTENSIONS
from mloc_tasks.data.rows import PromptReading, Reading
from mloc_tasks.data.source import RowSource
from mloc_tasks.errors import InputError, InputUnavailableError
from mloc_tasks.executors.base import Row


class DatasetRows(RowSource):
    """`{type: dataset, url, name, split, shuffle, seed, max_samples}`.

    Args:
        url: a name on the hub, a local folder of data files, one saved by `save_to_disk`, or a single data file.
        config: the dataset's configuration.
        split: a split or a slice of one, `train[:1%]`.
        revision: branch, tag or commit on the hub.
        reading: what is made of each row.
        shuffle_seed: shuffle the rows by this seed; None leaves their order.
        max_samples: only the first so many rows, after the shuffle.
    """

    def __init__(
        self,
        url: str,
        *,
        config: str | None = None,
        split: str = "train",
        revision: str | None = None,
        reading: Reading | None = None,
        shuffle_seed: int | None = None,
        max_samples: int | None = None,
    ) -> None:
        self._url = url
        self._config = config
        self._split = split
        self._revision = revision
        self._reading = reading or PromptReading()
        self._shuffle_seed = shuffle_seed
        self._max_samples = max_samples

    def count(self, limit: int | None = None) -> int:
        rows = len(self._table)
        return rows if limit is None else min(rows, limit)

    def rows(self, start: int, stop: int, offset: int | None = None) -> Iterator[Row]:
        stop = min(stop, len(self._table))
        place = self._place()
        for position, row in enumerate(self._table.select(range(start, stop)), start):
            yield self._reading.row(row, partial("{}, row {}".format, place, position))

    @cached_property
    def _table(self) -> Any:
        names = self._reading.columns(self._loaded.column_names, self._place)
        table = self._loaded.select_columns(names)
        for name, feature in table.features.items():
            if hasattr(feature, "decode_example"):  # an image or a sound: not decoded, it is no text
                table = table.cast_column(name, type(feature)(decode=False))
        if self._shuffle_seed is not None:
            table = table.shuffle(seed=self._shuffle_seed)
        if self._max_samples is not None:
            table = table.select(range(min(self._max_samples, len(table))))
        return table

    @cached_property
    def _loaded(self) -> Any:
        try:
            import datasets
        except ImportError as error:
            raise InputError(
                f"{self._place()}: needs the datasets library", hint="install it: pip install 'mloc[data]'"
            ) from error
        datasets.disable_progress_bars()
        try:
            return self._load(datasets)
        except FileNotFoundError as error:  # also datasets' DatasetNotFoundError and DataFilesNotFoundError
            raise InputError(f"{self._place()}: {error}", hint="check data.url and data.name") from error
        except ValueError as error:
            raise InputError(f"{self._place()}: {error}", hint="check data.name and data.split") from error
        except datasets.exceptions.DatasetGenerationError as error:
            raise InputError(f"{self._place()}: its files cannot be read: {error.__cause__ or error}") from error
        except OSError as error:  # ConnectionError and the hub's own errors among them
            raise InputUnavailableError(
                f"{self._place()}: {error}",
                hint="is the hub reachable from the worker? a local folder needs no network",
            ) from error

    def _load(self, datasets: Any) -> Any:
        if os.path.exists(os.path.join(self._url, "state.json")):
            return self._from_disk(datasets)
        if os.path.isfile(self._url):
            builder = EXTENSIONS.get(os.path.splitext(self._url)[1].lower())
            if builder is None:
                raise InputError(f"{self._place()}: its name does not tell its format")
            builder = "json" if builder == "jsonl" else builder
            return datasets.load_dataset(builder, self._config, data_files=self._url, split=self._split)
        return datasets.load_dataset(self._url, self._config, split=self._split, revision=self._revision)

    def _from_disk(self, datasets: Any) -> Any:
        """A folder of `Dataset.save_to_disk`: one split, of which slices are read like those of any other."""
        table = datasets.load_from_disk(self._url)
        name, bracket, _ = self._split.partition("[")
        if not bracket:
            return table
        split = datasets.ReadInstruction.from_spec(self._split)
        (piece,) = split.to_absolute({name: len(table)})
        return table.select(range(piece.from_ or 0, len(table) if piece.to is None else piece.to))

    def _place(self) -> str:
        return f"dataset {self._url!r}" + (f", split {self._split!r}" if self._split else "")
