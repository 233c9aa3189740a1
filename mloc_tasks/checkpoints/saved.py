"""Checkpoints of a shard in the store: complete or invisible, the newest of them taken up by the shard's next attempt.

They lie below the shard's prefix, as `checkpoints/<key>/<attempt>/step-<step>`. The key stands for the stage's resolved
document, its executor and its upstream's results: other checkpoints are never taken for these. The attempt's number is
what fences: no attempt removes what a later one has saved, nor comes before it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mloc_tasks.artifacts import ArtifactStore, Manifest
from mloc_tasks.errors import StoreError, StoreUnavailableError

_NAME = re.compile(r"([^/]+)/(\d+)/step-(\d+)/")

Tell = Callable[[str, str], None]
"""Takes a line for the run's log, and its level."""


def step_name(step: int) -> str:
    """The directory of a checkpoint, as executors publish it."""
    return f"step-{step:08d}"


@dataclass(frozen=True, order=True, slots=True)
class Saved:
    """A checkpoint in the store. The greatest is the newest: all that a later attempt saved comes after this one's."""

    attempt: int
    step: int


class SavedCheckpoints:
    """What the store holds of one shard, as seen by its attempt number `attempt`.

    Args:
        shard: the shard's prefix in the store.
        after: the attempts up to this number count for nothing: the stage is wanted anew since.
    """

    def __init__(self, store: ArtifactStore, shard: str, key: str, *, attempt: int, after: int = 0) -> None:
        self._store = store
        self._root = _root(shard)
        self._key = key
        self._attempt = attempt
        self._after = after
        self._pruned = False

    def fetch(self, target: Path, tell: Tell) -> Saved | None:
        """Bring the newest of earlier attempts into the directory `target`, digests verified; None without one.

        One that is damaged is told of and passed over. Raises `StoreUnavailableError`: better another attempt than one
        that begins anew.
        """
        damaged: set[Saved] = set()
        while True:
            found = {saved for key, saved in self._all() if key == self._key} - damaged
            newest = max((each for each in found if self._after < each.attempt < self._attempt), default=None)
            if newest is None:
                return None
            try:
                self._store.get_dir(self._prefix(newest), target)
            except StoreUnavailableError:
                raise
            except StoreError as error:
                damaged.add(newest)
                told = (
                    f"the checkpoint of step {newest.step}, saved by attempt {newest.attempt}, is passed over: {error}"
                )
                tell(told, "warning")
            else:
                return newest

    def put(self, step: int, source: Path) -> Manifest:
        """Store the directory `source` as the checkpoint of `step`; its files may be taken. Raises `StoreError`."""
        return self._store.put_dir(source, self._prefix(Saved(self._attempt, step)), move=True)

    def remove(self, step: int) -> None:
        """Remove what this attempt has put for `step`."""
        self._store.delete(self._prefix(Saved(self._attempt, step)))

    def prune(self, keep: int) -> None:
        """Remove all but the newest `keep`, and what killed attempts left incomplete. Never a later attempt's."""
        found = [each for each in self._all() if each[1].attempt <= self._attempt]
        newest_first = sorted((saved for key, saved in found if key == self._key), reverse=True)
        kept, others = newest_first[:keep], newest_first[keep:]
        emptied = {saved.attempt for saved in others if saved.attempt < self._attempt}
        if not self._pruned:
            emptied.update(range(1, self._attempt))
        emptied -= {saved.attempt for saved in kept}
        doomed = {f"{self._root}/{self._key}/{attempt}" for attempt in emptied}
        doomed.update(self._prefix(saved) for saved in others if saved.attempt not in emptied)
        doomed.update(f"{self._root}/{key}/{saved.attempt}" for key, saved in found if key != self._key)
        for prefix in sorted(doomed):
            self._store.delete(prefix)
        self._pruned = True

    def _all(self) -> Iterator[tuple[str, Saved]]:
        """Key and number of each complete checkpoint, of whatever key."""
        seen: set[tuple[str, Saved]] = set()
        for info in self._store.list(self._root):
            if match := _NAME.match(info.name.removeprefix(f"{self._root}/")):
                entry = (match[1], Saved(int(match[2]), int(match[3])))
                if entry not in seen:
                    seen.add(entry)
                    yield entry

    def _prefix(self, saved: Saved) -> str:
        return f"{self._root}/{self._key}/{saved.attempt}/{step_name(saved.step)}"


def remove_checkpoints(store: ArtifactStore, shard: str) -> None:
    """Remove all checkpoints of a shard that is done. Raises `StoreError`."""
    store.delete(_root(shard))


def _root(shard: str) -> str:
    return f"{shard}/checkpoints"
