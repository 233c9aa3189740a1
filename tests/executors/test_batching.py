"""Rows are grouped by length within the limits, and every row is in one batch."""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from mloc_tasks.executors.transformers.batching import BatchLimits, plan_batches, windows


@given(
    lengths=st.lists(st.integers(1, 500), max_size=60),
    new_tokens=st.integers(1, 300),
    sequences=st.integers(1, 20),
    tokens=st.integers(1, 5000),
    samples=st.integers(1, 4),
)
def test_every_row_stands_in_one_batch_within_the_limits(
    lengths: list[int], new_tokens: int, sequences: int, tokens: int, samples: int
) -> None:
    limits = BatchLimits(sequences=sequences, tokens=tokens)
    batches = plan_batches(lengths, new_tokens=new_tokens, limits=limits, samples=samples)
    assert sorted(position for batch in batches for position in batch) == list(range(len(lengths)))
    for batch in batches:
        width = max(lengths[position] for position in batch) + new_tokens
        fits = len(batch) * samples <= sequences and len(batch) * samples * width <= tokens
        assert fits or len(batch) == 1


def test_batches_hold_rows_of_similar_length_longest_first() -> None:
    limits = BatchLimits(sequences=2, tokens=10_000)
    assert plan_batches([3, 90, 5, 100, 4], new_tokens=10, limits=limits) == [[3, 1], [2, 4], [0]]


def test_no_rows_make_no_batch() -> None:
    assert plan_batches([], new_tokens=10, limits=BatchLimits(sequences=1, tokens=1)) == []


def test_windows_read_no_further_than_they_give() -> None:
    read: list[int] = []

    def rows() -> Iterator[int]:
        for row in range(7):
            read.append(row)
            yield row

    stream = windows(rows(), 3)
    assert next(stream) == [0, 1, 2]
    assert read == [0, 1, 2]
    assert list(stream) == [[3, 4, 5], [6]]
