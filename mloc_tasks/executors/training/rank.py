"""Which of a training's processes this is. Without others it is process 0 of 1."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Place:
    """A process among those of one training, all on one machine: `rank` counts from 0."""

    rank: int = 0
    world_size: int = 1


_here = Place()


def take(place: Place) -> None:
    """Say which process this is; once, before anything asks."""
    global _here
    _here = place


def rank() -> int:
    """This process's number, from 0; also the number of its GPU among those that it sees."""
    return _here.rank


def world_size() -> int:
    """How many processes train together."""
    return _here.world_size


def is_first() -> bool:
    """Whether this process is the one that writes and reports."""
    return _here.rank == 0


def barrier() -> None:
    """Wait until every process has come here."""
    if _here.world_size > 1:
        import torch.distributed

        torch.distributed.barrier()
