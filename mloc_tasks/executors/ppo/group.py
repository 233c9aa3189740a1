"""The processes of one training: who does which rows, and how what they found is put together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import torch

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Group:
    """Data-parallel processes, each with the whole model. The default is one process alone.

    Each process samples and scores its share of a rollout's rows; then all know the whole rollout, which is small (ids
    and three numbers a token), and compute rewards, advantages and their moments from the same numbers. Of each
    mini-batch they again take a share, and add up their gradients. So the number of processes changes the curve by
    rounding only.
    """

    rank: int = 0
    size: int = 1

    def share(self, rows: Sequence[T]) -> Sequence[T]:
        """This process's part of `rows`, the same number in all processes or one less."""
        return rows[self.rank :: self.size]

    def whole(self, share: Sequence[T]) -> list[T]:
        """What all processes have for their `share` of some rows, in the order of these rows."""
        if self.size == 1:
            return list(share)
        from torch import distributed

        shares: list[Sequence[T]] = [()] * self.size
        distributed.all_gather_object(shares, share)
        whole = [share[0]] * sum(map(len, shares)) if share else [each for part in shares for each in part]
        for rank, part in enumerate(shares):
            whole[rank :: self.size] = part
        return whole

    def add_up(self, tensors: Iterable[torch.Tensor]) -> None:
        """Replace each tensor by the sum of all processes'."""
        if self.size == 1:
            return
        from torch import distributed

        for work in [distributed.all_reduce(tensor, async_op=True) for tensor in tensors]:
            work.wait()

    def begin_equal(self, tensors: Iterable[torch.Tensor]) -> None:
        """Give every process the first one's values."""
        if self.size == 1:
            return
        from torch import distributed

        for tensor in tensors:
            distributed.broadcast(tensor, src=0)
