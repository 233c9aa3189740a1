"""Parquet: counted from its metadata, streamed by row group, only the needed columns read."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from mloc_tasks.data.formats import FileFormat, Scan
from mloc_tasks.data.locate import DataFile
from mloc_tasks.errors import InputError
from mloc_tasks.executors.base import Row

BATCH_ROWS = 1024


class ParquetFormat(FileFormat):
    """A table file; a chat column is a list of structs. A remote one is spooled to disk: it is read from its end."""

    def scan(self, file: DataFile, limit: int | None = None) -> Scan:
        with _table(file) as table:
            self.reading.columns(table.schema_arrow.names, lambda: file.name)
            count = table.metadata.num_rows
        return Scan(count=count if limit is None else min(count, limit))

    def rows(self, file: DataFile, start: int = 0, byte: int | None = None) -> Iterator[Row]:
        with _table(file) as table:
            names = self.reading.columns(table.schema_arrow.names, lambda: file.name)
            position, group = 0, 0
            while group < table.num_row_groups and position + _rows(table, group) <= start:
                position += _rows(table, group)
                group += 1
            groups = range(group, table.num_row_groups)
            for batch in table.iter_batches(BATCH_ROWS, row_groups=groups, columns=names):
                first = max(start - position, 0)
                for row, value in enumerate(batch.slice(min(first, batch.num_rows)).to_pylist(), position + first):
                    yield self.reading.row(value, partial("{}, row {}".format, file.name, row))
                position += batch.num_rows


def _rows(table: Any, group: int) -> int:
    rows: int = table.metadata.row_group(group).num_rows
    return rows


@contextmanager
def _table(file: DataFile) -> Iterator[Any]:
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise InputError(
            f"{file.name}: parquet files need pyarrow", hint="install it: pip install 'mloc[data]'"
        ) from error
    with file.open() as opened, tempfile.TemporaryFile() as spool:
        handle = opened
        if not opened.seekable():
            shutil.copyfileobj(opened, spool)
            spool.seek(0)
            handle = spool
        try:
            yield parquet.ParquetFile(handle, pre_buffer=False)
        except (arrow.ArrowException, OSError) as error:
            raise InputError(f"{file.name}: not a parquet file, or a damaged one: {error}") from error
