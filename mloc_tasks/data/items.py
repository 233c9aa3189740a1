"""The items of a stage's result: written as they come, inline while few, in part files from 10,000 on.

`responses.json` holds all items of a small result under `items`. A large one (or a shard, which a gather will merge)
keeps them in `items-00000.jsonl`, `items-00001.jsonl`, ...: one item per line, `PART_ITEMS` lines in each but the last.
`items` then holds the first `PREVIEW_ITEMS`, `items_total` the number, `items_failed` how many of them have
`ok: false`, `items_parts` the files.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from mloc_tasks.errors import InputError

PART_ITEMS = 10_000
"""Items in one part file, and the number from which on a result has part files."""
PREVIEW_ITEMS = 100
"""Items that `responses.json` shows of a result with part files."""
_COPY_LINES = 100
"""Lines copied in one go; few, so that long outputs do not add up."""

RESPONSES = "responses.json"
JOURNAL = ".rows.jsonl"
"""Where it stands in an output directory, each item is written to it too, at once; see `mloc_tasks.saved_rows`."""

# One for all rows: `json.dumps` with options makes a new one each time, which takes as long as the row.
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class Part:
    """One `items-*.jsonl` file: its name, the `index` of its first item, the number of its lines."""

    name: str
    start: int
    count: int


class ItemWriter:
    """Writes a stage's items in input order; holds fewer than `PART_ITEMS` of them in memory.

    Use it as a context manager, `write` each item, then ask `responses` for the document to return from an executor.

    Args:
        out_dir: the attempt's output directory; part files go there, `responses.json` is left to the caller.
        parts: True writes part files whatever the number of items (`Task.parts`).
    """

    def __init__(self, out_dir: Path, *, parts: bool = False) -> None:
        self._out_dir = out_dir
        self._in_parts = parts
        self._held: list[bytes] = []  # lines: all of them while few, then the preview
        self._parts: list[Part] = []
        self._file: BinaryIO | None = None
        self._total = 0
        self._first_index = 0
        self._failed = 0
        journal = out_dir / JOURNAL
        self._journal: BinaryIO | None = journal.open("ab", buffering=0) if journal.exists() else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __len__(self) -> int:
        return self._total

    @property
    def failed(self) -> int:
        """How many of the items written so far have `ok: false`."""
        return self._failed

    def write(self, item: dict[str, Any]) -> None:
        """Append one item; its `index` is one more than the last one's.

        Raises ValueError for an item out of order: a result stands in input order whatever the batching was.
        """
        index = item["index"]
        if self._total == 0:
            self._first_index = index
        elif index != self._first_index + self._total:
            expected = self._first_index + self._total
            raise ValueError(f"item {index} written where item {expected} is due; write items in input order")
        if item.get("ok") is False:
            self._failed += 1
        line = encode_line(item)
        if self._journal is not None:
            self._journal.write(line)
        self._append([line])

    def copy(self, lines: Iterable[bytes], *, first_index: int, failed: int) -> int:
        """Append encoded items without parsing them; returns how many there were.

        Args:
            lines: JSON lines, each with its newline, in input order, from `first_index` on.
            failed: how many of them have `ok: false`.
        """
        if self._total == 0:
            self._first_index = first_index
        before = self._total
        lines = iter(lines)
        while block := list(islice(lines, _COPY_LINES)):
            self._append(block)
        self._failed += failed
        return self._total - before

    def close(self) -> None:
        """Finish the open files. Closing twice is harmless."""
        if self._journal is not None:
            self._journal.close()
            self._journal = None
        self._close_part()

    def _close_part(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def responses(self, *, ok: bool, model: str, usage: dict[str, Any], **extra: Any) -> dict[str, Any]:
        """The content of `responses.json`: `ok`, `model`, `extra`, the items (or their preview and parts), `usage`."""
        self.close()
        document: dict[str, Any] = {"ok": ok, "model": model, **extra}
        document["items"] = [json.loads(line) for line in self._held]
        if self._in_parts:
            document["items_failed"] = self._failed
            document["items_truncated"] = self._total > len(self._held)
            document["items_total"] = self._total
            document["items_parts"] = [asdict(part) for part in self._parts]
        document["usage"] = usage
        return document

    def _append(self, lines: list[bytes]) -> None:
        if not self._in_parts and self._total + len(lines) >= PART_ITEMS:
            self._in_parts = True
            held, self._held, self._total = self._held, [], 0
            self._write_parts(held)
        if self._in_parts:
            self._write_parts(lines)
        else:
            self._held += lines
            self._total += len(lines)

    def _write_parts(self, lines: list[bytes]) -> None:
        if (room := PREVIEW_ITEMS - len(self._held)) > 0:
            self._held += lines[:room]
        while lines:
            if self._file is None or self._parts[-1].count == PART_ITEMS:
                self._open_part()
            assert self._file is not None
            part = self._parts[-1]
            fitting, lines = lines[: PART_ITEMS - part.count], lines[PART_ITEMS - part.count :]
            self._file.writelines(fitting)
            self._parts[-1] = replace(part, count=part.count + len(fitting))
            self._total += len(fitting)

    def _open_part(self) -> None:
        self._close_part()
        part = Part(f"items-{len(self._parts):05d}.jsonl", self._first_index + self._total, 0)
        self._file = (self._out_dir / part.name).open("wb")
        self._parts.append(part)


class ItemReader:
    """Reads the items of a finished stage or shard, streaming part files and opening only those it needs.

    Args:
        open_file: opens a file of the output directory by name (`responses.json`, `items-00000.jsonl`) for binary
            reading; iterating over what it returns gives lines.
        origin: what error messages call this result, such as `stage 'draft'`.
    """

    def __init__(self, open_file: Callable[[str], BinaryIO], *, origin: str = "the result") -> None:
        self._open_file = open_file
        self.origin = origin

    @cached_property
    def document(self) -> dict[str, Any]:
        """`responses.json`, parsed. Raises InputError when it is not a JSON object."""
        with self._open_file(RESPONSES) as handle:
            content = handle.read()
        try:
            document = json.loads(content)
        except ValueError as error:
            raise InputError(f"{self.origin}: {RESPONSES} is not JSON: {error}") from error
        if not isinstance(document, dict):
            raise InputError(f"{self.origin}: {RESPONSES} holds {type(document).__name__}, not an object")
        return document

    @property
    def parts(self) -> list[Part]:
        """The part files; empty when the items stand in `responses.json`."""
        return [Part(part["name"], part["start"], part["count"]) for part in self.document.get("items_parts") or ()]

    @cached_property
    def failed(self) -> int:
        """How many items have `ok: false`. Only where the executor that wrote the parts did not count are they read."""
        counted = self.document.get("items_failed")
        if isinstance(counted, int):
            return counted
        return sum(item.get("ok") is False for item in self.items())

    def __len__(self) -> int:
        if "items_parts" in self.document:
            return sum(part.count for part in self.parts)
        return len(self._inline())

    def items(self, start: int = 0, stop: int | None = None) -> Iterator[dict[str, Any]]:
        """The items at positions `start` to `stop` (counted from this result's first item, as in a slice)."""
        if "items_parts" not in self.document:
            yield from islice(self._inline(), start, stop)
            return
        for line in self.lines(start, stop):
            yield json.loads(line)

    def lines(self, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """As `items`, but each as its JSON line, newline included, unparsed where it comes from a part file."""
        if "items_parts" not in self.document:
            yield from map(encode_line, islice(self._inline(), start, stop))
            return
        position = 0
        for part in self.parts:
            first = max(start - position, 0)
            last = part.count if stop is None else min(stop - position, part.count)
            if first < last:
                yield from self._part_lines(part, first, last)
            position += part.count

    def _part_lines(self, part: Part, first: int, last: int) -> Iterator[bytes]:
        with self._open_file(part.name) as handle:
            expected = last - first
            for line in islice(handle, first, last):
                expected -= 1
                yield line if line.endswith(b"\n") else line + b"\n"
        if expected:
            raise InputError(f"{self.origin}: {part.name} ends {expected} lines early; it should have {part.count}")

    def _inline(self) -> list[dict[str, Any]]:
        items = self.document.get("items")
        if not isinstance(items, list):
            fields = ", ".join(sorted(self.document)) or "nothing"
            raise InputError(
                f"{self.origin} has no items to read (its fields: {fields})",
                hint="only stages that answer rows (inference, embedding, ...) have items; reference a field instead",
            )
        return items


def encode_line(item: dict[str, Any]) -> bytes:
    """One item as a line of strict UTF-8 JSON.

    What JSON or UTF-8 cannot say is made sayable and no row is lost for it: NaN and infinities (log-probabilities of
    impossible tokens) become null, lone surrogates (a token cut within a character) become U+FFFD.
    """
    try:
        return _ENCODER.encode(item).encode() + b"\n"
    except ValueError:
        text = _ENCODER.encode(_without_nan(item))
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode() + b"\n"


def _without_nan(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(inner) for inner in value]
    return value
