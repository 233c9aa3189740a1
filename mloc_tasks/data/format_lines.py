"""Formats with one row per line: JSON lines, and plain text. Blank lines are no rows."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import BinaryIO

from mloc_tasks.data.formats import MARK_EVERY, FileFormat, Scan
from mloc_tasks.data.locate import DataFile
from mloc_tasks.errors import InputError
from mloc_tasks.executors.base import Row

MAX_LINE_BYTES = 64 * 2**20
"""A longer line is a file of another format, and is not read into memory to find out."""

BOM = b"\xef\xbb\xbf"


def lines_of(file: DataFile, handle: BinaryIO, byte: int = 0) -> Iterator[tuple[int, int, bytes]]:
    """Each line after the bytes at which it begins and ends, from `byte` on, without a byte order mark."""
    if byte:
        handle.seek(byte)
    for line in iter(partial(handle.readline, MAX_LINE_BYTES), b""):
        start, byte = byte, byte + len(line)
        if len(line) == MAX_LINE_BYTES and not line.endswith(b"\n"):
            raise InputError(
                f"{place(file, start)}: longer than {MAX_LINE_BYTES // 2**20} MiB",
                hint="is it a file of lines? set data.format to what it is",
            )
        yield start, byte, line.removeprefix(BOM) if start == 0 else line


def place(file: DataFile, byte: int) -> str:
    """`FILE, line N`, for an error. The lines before are counted only now: a slice starts in the middle of a file."""
    number, left = 1, byte
    with file.open() as handle:
        while left > 0 and (block := handle.read(min(left, 2**20))):
            number += block.count(b"\n")
            left -= len(block)
    return f"{file.name}, line {number}"


class LineFormat(FileFormat):
    """Rows that are lines; a subclass says what a line holds."""

    @abstractmethod
    def _row(self, line: bytes, where: Callable[[], str]) -> Row: ...

    def scan(self, file: DataFile, limit: int | None = None) -> Scan:
        scan = Scan()
        with file.open() as handle:
            for byte, line in islice(self._rows(file, handle), limit):
                if scan.count == 0:
                    self._row(line, partial(place, file, byte))
                scan.see(byte)
        return scan

    def rows(self, file: DataFile, start: int = 0, byte: int | None = None) -> Iterator[Row]:
        with file.open() as handle:
            rows = self._rows(file, handle, byte or 0)
            for at, line in islice(rows, 0 if byte is not None else start, None):
                yield self._row(line, partial(place, file, at))

    def byte_of(self, file: DataFile, row: int, scan: Scan) -> int | None:
        with file.open() as handle:
            if not handle.seekable():
                return None
            mark, further = divmod(row, MARK_EVERY)
            rows = self._rows(file, handle, scan.marks[mark])
            return next(islice(rows, further, None))[0]

    def _rows(self, file: DataFile, handle: BinaryIO, byte: int = 0) -> Iterator[tuple[int, bytes]]:
        return ((start, line) for start, _, line in lines_of(file, handle, byte) if line.strip())


class JsonLinesFormat(LineFormat):
    """A JSON value per line: a mapping of columns, a string, or a chat."""

    def _row(self, line: bytes, where: Callable[[], str]) -> Row:
        try:
            row = json.loads(line.decode())
        except (ValueError, RecursionError) as error:
            array = line.lstrip()[:1] == b"["
            hint = "a JSON array of rows? set data.format: json" if array else "each line must be one JSON value"
            raise InputError(f"{where()}: not JSON: {error}", hint=hint) from error
        return self.reading.row(row, where)


class TextFormat(LineFormat):
    """A text per line."""

    def _row(self, line: bytes, where: Callable[[], str]) -> Row:
        return self.reading.row(decoded(line, where).rstrip("\r\n"), where)


def decoded(line: bytes, where: Callable[[], str]) -> str:
    """`line` as text. Raises InputError when it is not UTF-8."""
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        raise InputError(f"{where()}: not UTF-8: {error}", hint="convert the file to UTF-8") from error
