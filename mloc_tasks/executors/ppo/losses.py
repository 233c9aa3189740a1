"""The clipped losses of PPO, and the figures that tell how an update goes.

Schulman et al. 2017, "Proximal policy optimization algorithms"; Huang et al. 2022, "The 37 implementation details of
proximal policy optimization". Tensors are [batch, tokens]; `denominator` is the token count to divide by (see
`masked_mean`), given by the one who adds up the gradients of a mini-batch's slices. The entropy bonus is the masked
mean of `token_choices(...).entropies`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from mloc_tasks.executors.ppo.mask import at_least_float32, masked, masked_mean, masked_variance

if TYPE_CHECKING:
    import torch

EARLY_STOP_SLACK = 1.5
"""The passes over a rollout end once the KL is this many times its target (Achiam 2018, Spinning Up in deep RL)."""


class PolicyLoss(NamedTuple):
    """Scalars; only `loss` has a gradient.

    Attributes:
        clip_fraction: share of tokens whose gradient the clip has cut off.
        approx_kl: from the rollout's policy to this one, nats per token (k3, see `k3_per_token`; never negative).
    """

    loss: torch.Tensor
    clip_fraction: torch.Tensor
    approx_kl: torch.Tensor


class ValueLoss(NamedTuple):
    """Scalars; only `loss` has a gradient. `clip_fraction`: share of tokens where the clipped error was the larger."""

    loss: torch.Tensor
    clip_fraction: torch.Tensor


def policy_loss(
    logprobs: torch.Tensor,
    old_logprobs: torch.Tensor,
    advantages: torch.Tensor,
    mask: torch.Tensor,
    *,
    clip: float,
    denominator: float | torch.Tensor | None = None,
) -> PolicyLoss:
    """Mean of -min(ratio * A, clip(ratio, 1 - clip, 1 + clip) * A) (Schulman et al. 2017, equation 7).

    Args:
        logprobs: of the chosen tokens under the policy as it is, with gradient. old_logprobs: as the rollout had them.
        clip: 0.2 in the paper.
    """
    import torch

    log_ratio = masked(logprobs, mask) - masked(old_logprobs, mask).detach()
    ratio = log_ratio.exp()
    advantages = masked(advantages, mask).detach()
    plain = -advantages * ratio
    clipped = -advantages * ratio.clamp(1 - clip, 1 + clip)
    loss = masked_mean(torch.maximum(plain, clipped), mask, denominator=denominator)
    with torch.no_grad():
        cut = masked_mean((clipped > plain).float(), mask, denominator=denominator)
        kl = masked_mean(torch.expm1(log_ratio) - log_ratio, mask, denominator=denominator)
    return PolicyLoss(loss, cut, kl)


def value_loss(
    values: torch.Tensor,
    old_values: torch.Tensor,
    returns: torch.Tensor,
    mask: torch.Tensor,
    *,
    clip: float | None,
    denominator: float | torch.Tensor | None = None,
) -> ValueLoss:
    """Mean of max((value - return)^2, (value clipped to old_value +- clip - return)^2) / 2.

    Huang et al. 2022, detail 9, "value function loss clipping"; lm-human-preferences (Ziegler et al. 2019) has it too.

    Args:
        values: the value head's estimates as they are, with gradient. old_values: as the rollout had them.
        clip: in units of the return; None leaves the error unclipped.
    """
    import torch

    values, old_values, returns = (
        masked(values, mask),
        masked(old_values, mask).detach(),
        masked(returns, mask).detach(),
    )
    plain = (values - returns) ** 2
    if clip is None:
        return ValueLoss(masked_mean(plain, mask, denominator=denominator) / 2, plain.new_zeros(()))
    clipped = (old_values + (values - old_values).clamp(-clip, clip) - returns) ** 2
    loss = masked_mean(torch.maximum(plain, clipped), mask, denominator=denominator) / 2
    with torch.no_grad():
        # Within the clip both are the same number, which rounding makes the one or the other the larger.
        moved_far = (values - old_values).abs() > clip
        cut = masked_mean((moved_far & (clipped > plain)).float(), mask, denominator=denominator)
    return ValueLoss(loss, cut)


def explained_variance(values: torch.Tensor, returns: torch.Tensor, mask: torch.Tensor) -> float | None:
    """1 - Var(returns - values) / Var(returns): 1 is a perfect value head, 0 one as good as a constant.

    None where all returns are the same, which leaves nothing to explain.
    """
    returns = at_least_float32(returns.detach())
    variance = float(masked_variance(returns, mask))
    if variance == 0:
        return None
    return 1 - float(masked_variance(returns - at_least_float32(values.detach()), mask)) / variance


def far_over_target(kl: float, *, target_kl: float) -> bool:
    """Whether a divergence, in the target's unit, is so far over it that the passes over this rollout should end."""
    # Turned round so that a NaN ends them too.
    return not kl <= EARLY_STOP_SLACK * target_kl
