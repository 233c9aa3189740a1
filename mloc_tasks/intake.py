"""Which of the shards that this process has taken have a place: in a host, or here where they are light."""

from __future__ import annotations

from collections.abc import Callable

ShardName = tuple[str, str, str]  # run, stage, shard

_placed: set[ShardName] = set()
_listeners: list[Callable[[], None]] = []


def place(shard: ShardName) -> None:
    """The shard has its place, or works to get one: a model is being fetched for it."""
    _placed.add(shard)
    _tell()


def wait(shard: ShardName) -> None:
    """The shard has no place any more: it waits for one."""
    _placed.discard(shard)


def leave(shard: ShardName) -> None:
    """The shard is over, as far as this process is concerned."""
    _placed.discard(shard)
    _tell()


def is_placed(shard: ShardName) -> bool:
    return shard in _placed


def listen(listener: Callable[[], None]) -> None:
    """Have `listener`, and it alone, called after each change, from the thread that made it."""
    _listeners[:] = [listener]


def _tell() -> None:
    for listener in _listeners:
        listener()
