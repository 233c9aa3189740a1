"""How rows are split into shards."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mloc_tasks.data.slices import DEFAULT_SHARDS, plan_slices


@dataclass(frozen=True)
class Block:
    enabled: bool = True
    max_shards: int | None = None
    shard_size: int | None = None


def sizes(total: int, block: Block | None, replicas: int = 1) -> list[int]:
    return [stop - start for start, stop in plan_slices(total, parallel=block, replicas=replicas)]


counts = st.one_of(st.none(), st.integers(1, 2_000))


@given(total=st.integers(0, 5_000), max_shards=counts, shard_size=counts, replicas=st.integers(1, 50))
def test_slices_are_contiguous_non_empty_and_within_bounds(
    total: int, max_shards: int | None, shard_size: int | None, replicas: int
) -> None:
    block = Block(max_shards=max_shards, shard_size=shard_size)
    slices = plan_slices(total, parallel=block, replicas=replicas)

    assert slices[0][0] == 0
    assert slices[-1][1] == total
    assert all(left[1] == right[0] for left, right in pairwise(slices))
    if total == 0:
        assert slices == [(0, 0)]
        return
    lengths = [stop - start for start, stop in slices]
    assert min(lengths) >= 1
    assert len(slices) <= min(total, max_shards or total)
    assert len(slices) >= min(replicas, total, max_shards or total)
    if shard_size is None:
        assert max(lengths) - min(lengths) <= 1
    elif max_shards is None:
        assert max(lengths) <= shard_size


@pytest.mark.parametrize(
    ("total", "block", "replicas", "expected"),
    [
        (10, None, 4, [10]),
        (10, Block(enabled=False, max_shards=4), 4, [10]),
        (10, Block(max_shards=4), 1, [2, 3, 2, 3]),
        (3, Block(max_shards=8), 1, [1, 1, 1]),
        (130, Block(shard_size=64), 1, [64, 64, 2]),
        (130, Block(shard_size=64, max_shards=2), 1, [65, 65]),
        (130, Block(shard_size=64), 5, [26] * 5),
        (100, Block(), 1, [12, 13, 12, 13, 12, 13, 12, 13]),
        (9, Block(), 3, [3, 3, 3]),
        (8, Block(max_shards=2), 4, [4, 4]),
    ],
)
def test_what_decides_the_number_of_shards(total: int, block: Block | None, replicas: int, expected: list[int]) -> None:
    assert sizes(total, block, replicas) == expected
    assert DEFAULT_SHARDS == 8
