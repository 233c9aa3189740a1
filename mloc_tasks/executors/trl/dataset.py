"""Rows as a dataset that lies on disk, so that a training of many rows takes no more memory than one of few."""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mloc_tasks.errors import InputError
from mloc_tasks.executors.training.rank import barrier, is_first

if TYPE_CHECKING:
    from mloc_tasks.executors.base import TrainingRow

ROWS = "rows.arrow"


@contextmanager
def rows_folder(out_dir: Path) -> Iterator[Path]:
    """A folder for the rows and what TRL makes of them, gone afterwards."""
    folder = out_dir / ".rows"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield folder
    finally:
        if is_first():
            shutil.rmtree(folder, ignore_errors=True)


def dataset_of(rows: Iterable[TrainingRow], folder: Path) -> Any:
    """The `datasets.Dataset` of `rows`, memory-mapped from a file in `folder`, which the first process writes.

    Raises InputError when there is no row, or rows differ in what their columns hold.
    """
    path = folder / ROWS
    if is_first():
        _write(rows, path)
    barrier()
    datasets: Any = importlib.import_module("datasets")
    return datasets.Dataset.from_file(str(path))


def _write(rows: Iterable[TrainingRow], path: Path) -> None:
    import pyarrow

    waiting = iter(rows)
    first = next(waiting, None)
    if first is None:
        raise InputError("there is no row to train on")
    writer_of: Any = importlib.import_module("datasets.arrow_writer").ArrowWriter
    try:
        with writer_of(path=str(path)) as writer:
            for row in chain([first], waiting):
                writer.write(row)
            writer.finalize()
    except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError) as error:
        raise InputError(
            f"the rows cannot be put into one table: {error}",
            hint="all rows must have the same columns, each of one kind",
        ) from error
