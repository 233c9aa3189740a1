"""Generalised advantage estimation over completions of different lengths."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from mloc_tasks.executors.ppo.mask import masked

if TYPE_CHECKING:
    import torch


class Advantages(NamedTuple):
    """Both [batch, tokens], 0 outside the mask, without gradient."""

    advantages: torch.Tensor
    returns: torch.Tensor


def generalised_advantages(
    rewards: torch.Tensor, values: torch.Tensor, mask: torch.Tensor, *, gamma: float, lam: float
) -> Advantages:
    """Advantages and returns of every token (Schulman et al. 2016, "High-dimensional continuous control using
    generalized advantage estimation", equations 11 to 16).

        delta_t  = reward_t + gamma * value_{t+1} - value_t
        A_t      = delta_t + gamma * lam * A_{t+1}
        return_t = A_t + value_t                          (the TD(lambda) target of the value loss)

    A completion ends its episode, cut off at the length limit or not: after its last token value and advantage are 0
    (Ziegler et al. 2019). What a cut-off is worth is the missing-EOS penalty's to say.

    Args:
        rewards: of each token, [batch, tokens].
        values: the value head's estimate before each token, [batch, tokens].
        gamma: discount of later rewards, 0 to 1. lam: 0 trusts the values (TD), 1 the rewards (Monte Carlo).
    """
    import torch

    with torch.no_grad():
        rewards, values = masked(rewards, mask), masked(values, mask)
        following = torch.cat([values[:, 1:], torch.zeros_like(values[:, :1])], dim=1)
        deltas = masked(rewards + gamma * following - values, mask)
        advantages = torch.zeros_like(deltas)
        later = deltas.new_zeros(len(deltas))
        for token in range(deltas.shape[1] - 1, -1, -1):
            later = (deltas[:, token] + gamma * lam * later) * mask[:, token]
            advantages[:, token] = later
        return Advantages(advantages, advantages + values)
