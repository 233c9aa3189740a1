"""Gather: the results of a stage's shards become the stage's result, in input order, without parsing the rows."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from mloc_tasks.data.items import ItemReader, ItemWriter
from mloc_tasks.errors import ExecutionError

# Fields that `ItemWriter.responses` writes anew; what else a shard returned is kept when all shards agree on it.
_OWN_FIELDS = frozenset({"ok", "model", "items", "usage"})


def merge_shards(
    readers: Iterable[ItemReader], out_dir: Path, *, start: int = 0, parts: bool = False
) -> dict[str, Any]:
    """Merge shards, given in input order, into `out_dir`; returns the content of `responses.json`.

    `start` is the index that the first item has; `parts` asks for part files whatever the number of items.

    `readers` is consumed lazily and each shard's document let go after its turn; rows are copied as lines, so memory
    does not grow with their number. `ok` is true when every shard is. In `usage` every number is added up, except
    `latency_sec`, which is the longest shard's: the time that the stage takes when its shards run side by side.
    Other fields are kept where all shards have the same value.

    Raises ExecutionError when a shard's first index does not follow the last index of the shard before it.
    """
    ok, model, usage = True, "", dict[str, Any]()
    extra: dict[str, Any] | None = None
    with ItemWriter(out_dir, parts=parts) as writer:
        for shard, reader in enumerate(readers):
            document = reader.document
            _copy_shard(writer, reader, shard, start)
            ok = ok and document.get("ok") is not False
            model = model or document.get("model", "")
            usage = _add_usage(usage, document.get("usage") or {})
            extra = _agreed(extra, document)
            del reader.document  # its preview of rows; a caller may hold a list of a thousand readers
    return writer.responses(ok=ok, model=model, usage=usage, **(extra or {}))


def _copy_shard(writer: ItemWriter, reader: ItemReader, shard: int, start: int) -> None:
    lines = reader.lines()
    first = next(lines, None)
    if first is None:
        return
    index = json.loads(first).get("index")
    if index != start + len(writer):
        raise ExecutionError(
            f"shard {shard} begins with item {index}, expected {start + len(writer)}",
            hint="an executor numbers its items from `task.inputs.start` on",
        )
    writer.copy(chain([first], lines), first_index=start, failed=reader.failed)


def _add_usage(total: dict[str, Any], usage: dict[str, Any]) -> dict[str, Any]:
    added = dict(total)
    for name, value in _numbers(usage):
        known = added.get(name, 0)
        added[name] = max(known, value) if name == "latency_sec" else known + value
    return added


def _numbers(usage: dict[str, Any]) -> Iterator[tuple[str, float]]:
    for name, value in usage.items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            yield name, value


def further_fields(document: dict[str, Any]) -> dict[str, Any]:
    """What an executor's result says beside the fields that every result with items has."""
    return {
        name: value for name, value in document.items() if name not in _OWN_FIELDS and not name.startswith("items_")
    }


def _agreed(extra: dict[str, Any] | None, document: dict[str, Any]) -> dict[str, Any]:
    own = further_fields(document)
    if extra is None:
        return own
    return {name: value for name, value in extra.items() if own.get(name) == value}
