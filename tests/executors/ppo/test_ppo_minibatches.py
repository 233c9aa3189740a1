"""A rollout is learned from in a shuffled order that its seed alone decides."""

from __future__ import annotations

import pytest

from mloc_tasks.executors.ppo.minibatches import mini_batches


@pytest.mark.parametrize(("rows", "size", "slices"), [(16, 4, 2), (10, 4, 3), (3, 8, 8), (7, 1, 2), (0, 4, 1)])
def test_every_row_comes_once_in_parts_of_nearly_equal_size(rows: int, size: int, slices: int) -> None:
    batches = mini_batches(rows, mini_batch_size=size, slices=slices, seed=0, step=0, epoch=0)
    assert sorted(row for batch in batches for part in batch for row in part) == list(range(rows))
    sizes = [sum(map(len, batch)) for batch in batches]
    assert len(batches) == -(-rows // size)
    assert not sizes or (max(sizes) <= size and max(sizes) - min(sizes) <= 1)
    for batch in batches:
        lengths = [len(part) for part in batch]
        assert len(batch) == min(slices, sum(lengths))
        assert min(lengths) >= 1
        assert max(lengths) - min(lengths) <= 1


def test_the_order_follows_from_seed_step_and_epoch() -> None:
    orders = {
        (seed, step, epoch): mini_batches(32, mini_batch_size=8, seed=seed, step=step, epoch=epoch)
        for seed in (0, 1)
        for step in (0, 1)
        for epoch in (0, 1)
    }
    assert len(set(orders.values())) == len(orders)
    assert all(
        mini_batches(32, mini_batch_size=8, seed=seed, step=step, epoch=epoch) == order
        for (seed, step, epoch), order in orders.items()
    )


def test_the_order_is_the_same_in_every_python() -> None:
    assert mini_batches(5, mini_batch_size=3, slices=2, seed=7, step=2, epoch=1) == (((0, 4), (3,)), ((2,), (1,)))


@pytest.mark.parametrize("sizes", [{"mini_batch_size": 0}, {"mini_batch_size": 1, "slices": 0}])
def test_a_size_below_1_is_refused(sizes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="is none"):
        mini_batches(4, seed=0, step=0, epoch=0, **sizes)
