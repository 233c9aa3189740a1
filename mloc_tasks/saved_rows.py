"""Finished rows of a shard, in the store before the shard is done, so that its next attempt need not do them again.

While a host works, its executor's `ItemWriter` also writes each item to a journal beside the outputs. From time to time
the worker puts what is new there into the store, as `rows-<key>/<first>-<stop>.jsonl` below the shard's prefix. Rows
come in input order, so what is saved is the shard's beginning; the next attempt, on whatever machine, starts behind it.
The key stands for the stage's resolved document and its upstream's results: other rows are never taken for these.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from mloc_tasks.artifacts import ArtifactStore
from mloc_tasks.data.items import JOURNAL, RESPONSES, ItemReader
from mloc_tasks.data.merge import further_fields, merge_shards
from mloc_tasks.errors import StoreError
from mloc_tasks.executors.base import InputSlice, Row, write_json

logger = logging.getLogger("mloc.attempt")

_NAME = re.compile(r"(?:.*/)?(\d+)-(\d+)\.jsonl$")


def rows_key(document: Mapping[str, Any], upstream: Iterable[str]) -> str:
    """What two attempts must agree on to share rows: the resolved document and where the upstream results lie."""
    text = json.dumps([document, sorted(upstream)], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


class SavedRows:
    """The saved rows of one shard, from row `start` of the stage's input on.

    Args:
        shard: the shard's prefix in the store.
        every_sec: new rows are saved at most this often.
    """

    def __init__(self, store: ArtifactStore, shard: str, key: str, *, start: int, every_sec: float) -> None:
        self._store = store
        self._prefix = f"{shard}/rows-{key}"
        self._start = start
        self._stop = start  # rows before it are saved
        self._every_sec = every_sec
        self._next = time.monotonic() + every_sec
        self._journal: Path | None = None
        self._there = False  # whether something is saved
        self._read = 0  # bytes of the journal
        self.failed = 0  # of the rows that `fetch` brought

    def fetch(self, folder: Path, *, most: int) -> int:
        """Bring what earlier attempts have saved into `folder`, as a result that `ItemReader` reads; gives its rows.

        Rows after the first `most` are left, as if they had not been saved.
        """
        parts: list[dict[str, Any]] = []
        counts = _Usage()
        for name in self._chain():
            self._there = True
            target = folder / f"items-{len(parts):05d}.jsonl"
            lines = 0
            with self._store.open(name) as saved, target.open("wb") as copied:
                for line in islice(saved, most - (self._stop - self._start)):
                    copied.write(line)
                    counts.add(json.loads(line))
                    lines += 1
            if lines:
                parts.append({"name": target.name, "start": self._stop, "count": lines})
            self._stop += lines
        if parts:
            document = {"ok": True, "model": "", "items": [], "items_failed": counts.failed, "items_parts": parts}
            write_json(folder / RESPONSES, {**document, "usage": counts.usage})
        self.failed = counts.failed
        return self._stop - self._start

    def begin(self, out_dir: Path) -> None:
        """From now on rows are written to `out_dir`."""
        self._journal = out_dir / JOURNAL
        self._journal.touch()

    def look(self) -> None:
        """Save what is new, if it is time. A store that is away is a warning: the next look may reach it."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + self._every_sec
        try:
            self.save()
        except StoreError as error:
            logger.warning("finished rows are not saved yet: %s", error)

    def save(self) -> None:
        """Save what is new. Raises `StoreError`."""
        assert self._journal is not None
        with self._journal.open("rb") as journal:
            journal.seek(self._read)
            data = journal.read()
        whole = data[: data.rfind(b"\n") + 1]  # the last line may be in the writing
        if not whole:
            return
        stop = self._stop + whole.count(b"\n")
        self._store.put_bytes(whole, f"{self._prefix}/{self._stop:010d}-{stop:010d}.jsonl")
        self._there = True
        self._read += len(whole)
        self._stop = stop

    def end(self, out_dir: Path) -> None:
        """The journal is no output."""
        (out_dir / JOURNAL).unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove what is saved: the shard's result has all of it."""
        if self._there:
            self._store.delete(self._prefix)

    def _chain(self) -> Iterator[str]:
        """Names of saved files that follow each other without a gap; where attempts overlap, the longest."""
        saved: dict[int, tuple[int, str]] = {}
        for info in self._store.list(self._prefix):
            if match := _NAME.match(info.name):
                first, stop = int(match[1]), int(match[2])
                saved[first] = max(saved.get(first, (0, "")), (stop, f"{self._prefix}/{Path(info.name).name}"))
        position = self._start
        while position in saved:
            position, name = saved[position]
            yield name


class _Usage:
    """The sum of the items' usage."""

    def __init__(self) -> None:
        self.usage: dict[str, int] = {}
        self.failed = 0

    def add(self, item: Mapping[str, Any]) -> None:
        self.failed += item.get("ok") is False
        for name, number in {"num_requests": 1, **item.get("usage", {})}.items():
            self.usage[name] = self.usage.get(name, 0) + number


class RemainingRows:
    """A shard's rows less the first `done`, which are saved."""

    def __init__(self, rows: InputSlice, done: int) -> None:
        self._rows = rows
        self._done = done
        self.start = rows.start + done

    def __len__(self) -> int:
        return len(self._rows) - self._done

    def __iter__(self) -> Iterator[Row]:
        return islice(iter(self._rows), self._done, None)


def put_together(before: Path, now: Path, out_dir: Path, *, start: int, parts: bool) -> None:
    """Merge what earlier attempts saved and the result of this one, from row `start` on, into `out_dir`.

    What the result says beside its items, such as the adapter that was used, only an executor can say: this attempt's.
    """
    readers = [ItemReader(lambda name, folder=folder: (folder / name).open("rb")) for folder in (before, now)]  # type: ignore[misc]
    result = merge_shards(readers, out_dir, start=start, parts=parts)
    told = json.loads((now / RESPONSES).read_bytes())
    write_json(out_dir / RESPONSES, {**result, **further_fields(told)})
