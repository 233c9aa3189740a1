"""CSV with a header. A quoted field may hold newlines, so records are counted and entered, not lines."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from functools import partial
from itertools import islice
from typing import BinaryIO

from mloc_tasks.data.format_lines import MAX_LINE_BYTES, decoded, lines_of, place
from mloc_tasks.data.formats import MARK_EVERY, FileFormat, Scan
from mloc_tasks.data.locate import DataFile
from mloc_tasks.errors import InputError
from mloc_tasks.executors.base import Row

Record = tuple[int, list[str]]
"""The byte at which a record begins, and its fields."""


class CsvFormat(FileFormat):
    """Comma-separated, UTF-8, first record the column names; blank lines are no rows."""

    def scan(self, file: DataFile, limit: int | None = None) -> Scan:
        scan = Scan()
        with file.open() as handle:
            records = _records(file, handle)
            if (header := next(records, None)) is not None:
                self._columns(file, header[1])
                for byte, _ in islice(records, limit):
                    scan.see(byte)
        return scan

    def rows(self, file: DataFile, start: int = 0, byte: int | None = None) -> Iterator[Row]:
        with file.open() as handle:
            records = _records(file, handle)
            header = next(records, None)
            if header is None:
                return
            names = header[1]
            columns = [(name, names.index(name)) for name in self._columns(file, names)]
            if byte is not None:
                records, start = _records(file, handle, byte), 0
            for at, fields in islice(records, start, None):
                if len(fields) != len(names):
                    raise InputError(
                        f"{place(file, at)}: {len(fields)} fields under {len(names)} column names",
                        hint='quote fields that hold commas or newlines: "like, this"',
                    )
                yield self.reading.row({name: fields[column] for name, column in columns}, partial(place, file, at))

    def byte_of(self, file: DataFile, row: int, scan: Scan) -> int | None:
        with file.open() as handle:
            if not handle.seekable():
                return None
            mark, further = divmod(row, MARK_EVERY)
            return next(islice(_records(file, handle, scan.marks[mark]), further, None))[0]

    def _columns(self, file: DataFile, names: list[str]) -> list[str]:
        return self.reading.columns(names, lambda: file.name)


def _records(file: DataFile, handle: BinaryIO, byte: int = 0) -> Iterator[Record]:
    end = byte

    def text() -> Iterator[str]:
        nonlocal end
        for at, end, line in lines_of(file, handle, byte):  # noqa: B007 - `end` is the enclosing function's
            yield decoded(line, partial(place, file, at))

    # The limit is the process's; the default of 128 KiB is less than a long prompt.
    csv.field_size_limit(MAX_LINE_BYTES)
    # The reader takes no line beyond the record it returns, so `end` is where the next one begins.
    reader = csv.reader(text(), strict=True)
    while True:
        start = end
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise InputError(
                f"{place(file, start)}: malformed CSV record: {error}", hint="is a quote opened and not closed?"
            ) from error
        if fields:
            yield start, fields
