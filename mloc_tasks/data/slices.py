"""How many shards a stage gets, and which rows each of them has. Pure functions."""

from __future__ import annotations

from typing import Protocol

DEFAULT_SHARDS = 8
"""Shards of a stage with `parallel: {enabled: true}` that says neither how many nor how large."""


class Parallel(Protocol):
    """The `parallel` block of a stage."""

    @property
    def enabled(self) -> bool: ...

    @property
    def max_shards(self) -> int | None: ...

    @property
    def shard_size(self) -> int | None: ...


def plan_slices(total: int, *, parallel: Parallel | None, replicas: int = 1) -> list[tuple[int, int]]:
    """Split `total` rows into contiguous `(start, stop)` slices, one per shard.

    `shard_size` rows make a shard; without it there are `max_shards` of them (else `replicas`, or `DEFAULT_SHARDS`),
    alike but for one row. There are at least `replicas` shards and at most `max_shards`, which wins over it; where
    either overrules `shard_size` the rows are spread evenly. No shard is empty, except that no rows make one empty
    slice, so that an empty input has a result. Not parallel: one slice.
    """
    if total == 0 or parallel is None or not parallel.enabled:
        return [(0, total)]
    size = parallel.shard_size
    if size is not None:
        wanted = -(-total // size)
    else:
        wanted = parallel.max_shards or (replicas if replicas > 1 else DEFAULT_SHARDS)
    shards = max(wanted, replicas)
    if parallel.max_shards is not None:
        shards = min(shards, parallel.max_shards)
    shards = max(1, min(shards, total))
    if size is not None and shards == wanted:
        return [(start, min(start + size, total)) for start in range(0, total, size)]
    return [(total * shard // shards, total * (shard + 1) // shards) for shard in range(shards)]
