"""A JSON array of rows, for small files: an array cannot be streamed, so its size is bounded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial

from mloc_tasks.data.formats import FileFormat, Scan
from mloc_tasks.data.locate import DataFile
from mloc_tasks.errors import InputError
from mloc_tasks.executors.base import Row

MAX_JSON_BYTES = 32 * 2**20


class JsonFormat(FileFormat):
    """One array; its elements are mappings of columns, strings, or chats."""

    def scan(self, file: DataFile, limit: int | None = None) -> Scan:
        elements = self._elements(file)
        if elements:
            self._row(file, 0, elements[0])
        return Scan(count=len(elements) if limit is None else min(len(elements), limit))

    def rows(self, file: DataFile, start: int = 0, byte: int | None = None) -> Iterator[Row]:
        elements = self._elements(file)
        for position in range(start, len(elements)):
            yield self._row(file, position, elements[position])

    def _row(self, file: DataFile, position: int, element: object) -> Row:
        return self.reading.row(element, partial("{}, element {}".format, file.name, position))

    def _elements(self, file: DataFile) -> list[object]:
        with file.open() as handle:
            content = handle.read(MAX_JSON_BYTES + 1)
        if len(content) > MAX_JSON_BYTES:
            raise InputError(
                f"{file.name}: a JSON array of more than {MAX_JSON_BYTES // 2**20} MiB is not read",
                hint="write one row per line (jq -c '.[]' in.json > out.jsonl) and set data.format: jsonl",
            )
        try:
            value = json.loads(content)
        except (ValueError, RecursionError) as error:
            hint = "several JSON values, one per line? set data.format: jsonl" if "Extra data" in str(error) else ""
            raise InputError(f"{file.name}: not JSON: {error}", hint=hint) from error
        if not isinstance(value, list):
            raise InputError(f"{file.name}: holds one {type(value).__name__}, not an array of rows")
        return value
