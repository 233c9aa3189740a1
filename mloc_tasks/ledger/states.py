"""The states of runs, stages and shards, and the only moves between them: forward."""

from __future__ import annotations

from enum import StrEnum

from mloc_tasks.errors import IllegalTransitionError


class State(StrEnum):
    """Where a run, stage or shard stands. Runs use all but `skipped` and `cached`."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"
    CACHED = "cached"

    @property
    def is_final(self) -> bool:
        return self not in (State.QUEUED, State.RUNNING)

    @property
    def is_success(self) -> bool:
        return self in (State.DONE, State.CACHED)


def check_transition(old: State, new: State, *, what: str) -> None:
    """Raise `IllegalTransitionError` unless `old -> new` moves forward."""
    forward = not old.is_final and (new.is_final or (old is State.QUEUED and new is State.RUNNING))
    if not forward:
        raise IllegalTransitionError(f"{what} is {old}: it cannot become {new}")
