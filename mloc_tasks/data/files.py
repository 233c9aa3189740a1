"""Files of rows, one after the other, as one input."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate, islice

from mloc_tasks.data.formats import FileFormat, Scan, file_format, format_name
from mloc_tasks.data.locate import DataFile, OpenUrl, find_files
from mloc_tasks.data.rows import PromptReading, Reading
from mloc_tasks.data.source import RowSource
from mloc_tasks.executors.base import Row


class FileRows(RowSource):
    """`{type: file, url, format}`: the rows of a file, or of all files of a glob in the order of their names.

    Offsets are bytes into all files put together; local and other seekable line formats and CSV have them. They come
    from the pass that counted, which remembers the position of every thousandth row.

    Args:
        url: a path, a glob, or a file://, s3://, http(s):// address.
        format: jsonl, json, csv, parquet or text; None: each file's extension tells.
        reading: what is made of each row.
    """

    def __init__(
        self,
        url: str,
        *,
        format: str | None = None,
        reading: Reading | None = None,
        open_url: OpenUrl | None = None,
    ) -> None:
        reading = reading or PromptReading()
        self._files = find_files(url, open_url=open_url)
        self._formats = [file_format(format or format_name(file.name), reading) for file in self._files]
        self._scans: list[Scan | None] = [None] * len(self._files)

    def count(self, limit: int | None = None) -> int:
        total = 0
        for number, (file, form) in enumerate(self._pairs()):
            if limit is not None and total >= limit:
                break
            if limit is None or self._scans[number] is not None:
                total += self._scan(number).count
            else:
                total += form.scan(file, limit - total).count
        return total if limit is None else min(total, limit)

    def rows(self, start: int, stop: int, offset: int | None = None) -> Iterator[Row]:
        return islice(self._begin(start) if offset is None else self._begin_at(offset), stop - start)

    def offsets(self, starts: Sequence[int]) -> list[int | None]:
        found: list[int | None] = []
        before = self._bytes_before()
        number, rows_before = 0, 0
        for start in starts:
            while number < len(self._files) and start >= rows_before + self._scan(number).count:
                rows_before += self._scan(number).count
                number += 1
            if number == len(self._files) or before is None:
                found.append(None)
                continue
            file, scan = self._files[number], self._scan(number)
            byte = self._formats[number].byte_of(file, start - rows_before, scan)
            found.append(None if byte is None else before[number] + byte)
        return found

    def _begin(self, start: int) -> Iterator[Row]:
        last = len(self._files) - 1
        for number, (file, form) in enumerate(self._pairs()):
            if start and number < last:
                count = self._scan(number).count
                if start >= count:
                    start -= count
                    continue
            yield from form.rows(file, start)
            start = 0

    def _begin_at(self, offset: int) -> Iterator[Row]:
        before = self._bytes_before() or [0]
        first = max(number for number, size in enumerate(before) if size <= offset)
        yield from self._formats[first].rows(self._files[first], byte=offset - before[first])
        for file, form in islice(self._pairs(), first + 1, None):
            yield from form.rows(file)

    def _pairs(self) -> Iterator[tuple[DataFile, FileFormat]]:
        return zip(self._files, self._formats, strict=True)

    def _scan(self, number: int) -> Scan:
        scan = self._scans[number]
        if scan is None:
            scan = self._scans[number] = self._formats[number].scan(self._files[number])
        return scan

    def _bytes_before(self) -> list[int] | None:
        """For each file the bytes of all before it; None when that cannot be known without reading them."""
        sizes = list[int]()
        for file in self._files[:-1]:
            size = file.size()
            if size is None:
                return None
            sizes.append(size)
        return [0, *accumulate(sizes)]
