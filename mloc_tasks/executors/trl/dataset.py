"""Rows as a dataset that lies on disk, so that a training of many rows takes no more memory than one of few.

Messages and what a template is given beside them are kept as JSON: in a table of nested columns every row would have
the fields of all others, empty, and a field that first appears in a later batch would be an error.
"""

from __future__ import annotations

import importlib
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mloc_tasks.errors import InputError
from mloc_tasks.executors.training.rank import barrier, is_first
from mloc_tasks.executors.training.tokens import BESIDE

if TYPE_CHECKING:
    from mloc_tasks.executors.base import TrainingRow

ROWS = "rows.arrow"
COLUMNS = "columns.json"
"""Names of the columns that some row has; `ROWS` has those of `BESIDE` whether one does or not."""


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

    Raises InputError when there is no row, or rows differ in their columns.
    """
    if is_first():
        _write(rows, folder)
    barrier()
    datasets: Any = importlib.import_module("datasets")
    return datasets.Dataset.from_file(str(folder / ROWS)).select_columns(json.loads((folder / COLUMNS).read_text()))


def _write(rows: Iterable[TrainingRow], folder: Path) -> None:
    waiting = iter(rows)
    first = next(waiting, None)
    if first is None:
        raise InputError("there is no row to train on")
    datasets: Any = importlib.import_module("datasets")
    writer_of: Any = importlib.import_module("datasets.arrow_writer").ArrowWriter
    kinds = _kinds(first)
    types = {"chat": datasets.List(datasets.Json()), "text": datasets.Value("string")}
    beside = {"tools": datasets.Value("string"), "chat_template_kwargs": datasets.Json()}
    features = datasets.Features({name: types[kind] for name, kind in kinds.items()} | beside)
    found: set[str] = set()
    with writer_of(path=str(folder / ROWS), features=features) as writer:
        for number, row in enumerate(chain([first], waiting)):
            if _kinds(row) != kinds:
                raise InputError(
                    f"row {number} has {_described(row)}, and row 0 has {_described(first)}",
                    hint="all rows must have the same columns, each of one kind",
                )
            writer.write(_written(row, number))
            found |= row.keys()
        writer.finalize()
    (folder / COLUMNS).write_text(json.dumps([name for name in features if name in found]))


def _kinds(row: TrainingRow) -> dict[str, str]:
    """What the columns hold that every row must have."""
    return {name: "chat" if isinstance(value, list) else "text" for name, value in row.items() if name not in BESIDE}


def _described(row: TrainingRow) -> str:
    return ", ".join(f"{name} ({kind})" for name, kind in sorted(_kinds(row).items()))


def _written(row: TrainingRow, number: int) -> Mapping[str, Any]:
    """`row` as it is in the file. TRL reads `tools` as JSON text, and takes no null for `chat_template_kwargs`."""
    held = {name: [_json(each, number) for each in row[name]] for name, kind in _kinds(row).items() if kind == "chat"}
    tools = _json(row["tools"], number) if "tools" in row else None
    return {**row, **held, "tools": tools, "chat_template_kwargs": _json(row.get("chat_template_kwargs", {}), number)}


def _json(value: Any, number: int) -> str:
    """Raises InputError for what datasets' JSON cannot give back: whole numbers of more than 64 bits."""
    text = json.dumps(value, ensure_ascii=False)
    datasets: Any = importlib.import_module("datasets")
    if datasets.Json().encode_example(text) != text:
        raise InputError(
            f"row {number} has a value that cannot be kept: {text:.80}",
            hint="write whole numbers of more than 64 bits as text",
        )
    return text
