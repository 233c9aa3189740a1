"""What a file format can do: count its rows, and stream them from the middle."""

from __future__ import annotations

from abc import ABC, abstractmethod
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field

from mloc_tasks.data.locate import DataFile
from mloc_tasks.data.rows import Reading
from mloc_tasks.errors import InputError
from mloc_tasks.executors.base import Row

MARK_EVERY = 1024
"""Rows between two remembered byte positions: 8 bytes for each thousand rows, at most a thousand rows re-read."""


@dataclass
class Scan:
    """What one pass over a file found: its rows, and at which byte each `MARK_EVERY`-th begins (where formats can)."""

    count: int = 0
    marks: array[int] = field(default_factory=lambda: array("Q"))

    def see(self, byte: int) -> None:
        """Count a row that begins at `byte`."""
        if self.count % MARK_EVERY == 0:
            self.marks.append(byte)
        self.count += 1


class FileFormat(ABC):
    """How rows stand in a file, and what is made of each (`reading`)."""

    def __init__(self, reading: Reading) -> None:
        self.reading = reading

    @abstractmethod
    def scan(self, file: DataFile, limit: int | None = None) -> Scan:
        """Count the rows, up to `limit`. Raises InputError also for a column that the file does not have."""

    @abstractmethod
    def rows(self, file: DataFile, start: int = 0, byte: int | None = None) -> Iterator[Row]:
        """The rows from `start` on; with `byte`, from the row that begins there (and `start` is not looked at)."""

    def byte_of(self, file: DataFile, row: int, scan: Scan) -> int | None:
        """The byte at which a row begins; None where the format, or the file, cannot be entered in the middle."""
        return None


EXTENSIONS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".txt": "text",
    ".text": "text",
}


def format_name(file_name: str) -> str:
    """The format that a file's extension means; an address may end in a query. Raises InputError: unknown."""
    path = file_name.split("?", 1)[0].split("#", 1)[0] if "://" in file_name else file_name
    extension = "." + path.rsplit(".", 1)[-1].lower()
    if extension in EXTENSIONS:
        return EXTENSIONS[extension]
    formats = ", ".join(dict.fromkeys(EXTENSIONS.values()))
    raise InputError(f"{file_name}: its name does not tell its format", hint=f"set data.format to one of {formats}")


def file_format(name: str, reading: Reading) -> FileFormat:
    """The format of that name. Raises InputError for an unknown one."""
    from mloc_tasks.data.format_csv import CsvFormat
    from mloc_tasks.data.format_json import JsonFormat
    from mloc_tasks.data.format_lines import JsonLinesFormat, TextFormat
    from mloc_tasks.data.format_parquet import ParquetFormat

    classes: dict[str, type[FileFormat]] = {
        "jsonl": JsonLinesFormat,
        "json": JsonFormat,
        "csv": CsvFormat,
        "parquet": ParquetFormat,
        "text": TextFormat,
    }
    if name not in classes:
        raise InputError(f"data.format {name!r} is not known", hint=f"set it to one of {', '.join(classes)}")
    return classes[name](reading)
