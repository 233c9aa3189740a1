"""Statistics over the tokens under a mask."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

WHITENING_EPSILON = 1e-8
"""Added to the variance before its root, as in lm-human-preferences (the code of Ziegler et al. 2019)."""


def at_least_float32(tensor: torch.Tensor) -> torch.Tensor:
    """float64 stays what it is; everything else becomes float32."""
    import torch

    return tensor if tensor.dtype == torch.float64 else tensor.float()


def masked(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """`values` in float32 at least, 0 outside the mask. Filled, not multiplied: 0 times NaN would be NaN."""
    return at_least_float32(values).masked_fill(~mask, 0.0)


def masked_mean(
    values: torch.Tensor, mask: torch.Tensor, *, denominator: float | torch.Tensor | None = None
) -> torch.Tensor:
    """The mean of `values` [batch, tokens] under the mask, a scalar; 0 if the mask is empty.

    Args:
        denominator: the sum is divided by this in place of the mask's own count. With the token count of the whole
            mini-batch, what its slices give adds up to the mini-batch's mean, however the lengths are spread.
    """
    total = masked(values, mask).sum()
    return total / (mask.sum().clamp(min=1) if denominator is None else denominator)


@dataclass(frozen=True, kw_only=True)
class Moments:
    """Count, mean and sum of squared deviations of some numbers. Those of disjoint sets add up: `a + b`.

    So that processes which hold parts of a rollout can whiten by the moments of all of it. The sum follows Chan, Golub
    and LeVeque 1979, "Updating formulae and a pairwise algorithm for computing sample variances".
    """

    count: torch.Tensor
    mean: torch.Tensor
    squared_deviations: torch.Tensor

    @property
    def variance(self) -> torch.Tensor:
        """With Bessel's correction; 0 for fewer than two numbers."""
        return self.squared_deviations / (self.count - 1).clamp(min=1)

    def __add__(self, other: Moments) -> Moments:
        count = self.count + other.count
        share = other.count / count.clamp(min=1)
        apart = other.mean - self.mean
        return Moments(
            count=count,
            mean=self.mean + apart * share,
            squared_deviations=self.squared_deviations + other.squared_deviations + apart**2 * self.count * share,
        )


def masked_moments(values: torch.Tensor, mask: torch.Tensor) -> Moments:
    """Moments of `values` [batch, tokens] under the mask: scalars."""
    mean = masked_mean(values, mask)
    deviations = masked(at_least_float32(values) - mean, mask)
    return Moments(count=mask.sum(), mean=mean, squared_deviations=(deviations**2).sum())


def masked_variance(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The variance of `values` [batch, tokens] under the mask, with Bessel's correction; 0 below two tokens."""
    return masked_moments(values, mask).variance


def whitened(
    values: torch.Tensor, mask: torch.Tensor, *, shift_mean: bool = True, moments: Moments | None = None
) -> torch.Tensor:
    """`values` [batch, tokens] scaled about their mean to variance 1 under the mask; 0 outside it.

    Huang et al. 2023, "The N implementation details of RLHF with PPO": advantages are whitened with their mean
    shifted to 0, rewards without, since a reward's sign means something.

    Args:
        shift_mean: False keeps the mean where it is.
        moments: those of a larger set that `values` are part of; by default their own.
    """
    import torch

    moments = moments or masked_moments(values, mask)
    scaled = (at_least_float32(values) - moments.mean) * torch.rsqrt(moments.variance + WHITENING_EPSILON)
    return masked(scaled if shift_mean else scaled + moments.mean, mask)
