"""The order in which a rollout's completions are learned from."""

from __future__ import annotations

import random
from collections.abc import Sequence

MiniBatch = tuple[tuple[int, ...], ...]
"""Rows of one optimizer step, in the slices whose gradients are added up for it."""


def mini_batches(
    rows: int, *, mini_batch_size: int, slices: int = 1, seed: int, step: int, epoch: int
) -> tuple[MiniBatch, ...]:
    """Every row once, shuffled: one mini-batch for each optimizer step of this pass over the rollout.

    The order is a function of seed, step and epoch alone, so a run resumed at a step needs no saved random state. Sizes
    of mini-batches differ by one row at most, as do those of their slices: no step is made from a small remainder.

    Args:
        rows: completions of the rollout.
        mini_batch_size: rows of a mini-batch at most.
        slices: parts of a mini-batch, forwarded one after the other to save memory; fewer where it has fewer rows.
        step: number of the rollout. epoch: number of the pass over it.

    Raises:
        ValueError: a size below 1.
    """
    if mini_batch_size < 1 or slices < 1:
        raise ValueError(f"a mini-batch of {mini_batch_size} rows in {slices} slices is none")
    order = list(range(rows))
    # Text, not a tuple's hash: text seeds the same stream in every Python and on every machine.
    random.Random(f"{seed}/{step}/{epoch}").shuffle(order)
    count = -(-rows // mini_batch_size)
    return tuple(_parted(part, min(slices, len(part))) for part in _parted(order, count))


def _parted(rows: Sequence[int], count: int) -> tuple[tuple[int, ...], ...]:
    """`count` runs of `rows`, the longer ones first."""
    size, longer = divmod(len(rows), count) if count else (0, 0)
    ends = [size * (part + 1) + min(part + 1, longer) for part in range(count)]
    starts = [0, *ends]
    return tuple(tuple(rows[start:end]) for start, end in zip(starts, ends, strict=False))
