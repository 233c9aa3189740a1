"""Which rows are generated together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class BatchLimits:
    """Bounds of one batch.

    Attributes:
        sequences: completions generated side by side.
        tokens: sequences times (longest prompt + new tokens), padding counted: what the key-value cache has to hold.
    """

    sequences: int
    tokens: int


def plan_batches(lengths: Sequence[int], *, new_tokens: int, limits: BatchLimits, samples: int = 1) -> list[list[int]]:
    """Group rows of similar length, so that little is padded; longest first, so that a batch too big fails early.

    Args:
        lengths: prompt tokens of each row.
        new_tokens: tokens that a completion may add.
        samples: completions per row; all of a row's stand in one batch.

    Returns positions in `lengths`, each in exactly one batch. A row that exceeds the limits has a batch of its own.
    """
    batches: list[list[int]] = []
    width = 0
    for position in sorted(range(len(lengths)), key=lambda each: (-lengths[each], each)):
        sequences = samples * (len(batches[-1]) + 1) if batches else 0
        if not batches or sequences > limits.sequences or sequences * width > limits.tokens:
            batches.append([])
            width = lengths[position] + new_tokens  # the first of a batch is its longest
        batches[-1].append(position)
    return batches


def windows(rows: Iterable[T], size: int) -> Iterator[list[T]]:
    """Consecutive lists of up to `size` rows; reads no further than the list it gives."""
    iterator = iter(rows)
    while window := list(islice(iterator, size)):
        yield window
