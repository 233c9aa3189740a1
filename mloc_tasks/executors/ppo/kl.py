"""How far the policy has moved from its reference, and the weight of the penalty on that."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from mloc_tasks.errors import ExecutionError
from mloc_tasks.executors.ppo.mask import masked

if TYPE_CHECKING:
    import torch

ERROR_CLIP = 0.2
"""The controller heeds at most this relative distance from its target (Ziegler et al. 2019, section 2.2)."""


def kl_per_token(logprobs: torch.Tensor, reference_logprobs: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """log(policy / reference) of each sampled token in nats, [batch, tokens]; 0 outside the mask.

    The plain estimate, "k1" in Schulman 2020, "Approximating KL divergence": unbiased, but negative for some tokens.
    The reward's penalty is made of it: Ziegler et al. 2019, "Fine-tuning language models from human preferences",
    equation 2; Ouyang et al. 2022, "Training language models to follow instructions with human feedback", equation 2.
    """
    return masked(logprobs, mask) - masked(reference_logprobs, mask)


def k3_per_token(logprobs: torch.Tensor, reference_logprobs: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The estimate of the same divergence called "k3" in Schulman 2020, [batch, tokens]: for reports.

        r - 1 - log(r) with r = reference / policy

    Unbiased too, never negative and mostly of lower variance; a token the reference finds far likelier can dominate it.
    """
    import torch

    log_ratio = -kl_per_token(logprobs, reference_logprobs, mask)
    return torch.expm1(log_ratio) - log_ratio


def kl_per_completion(kl: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The sum of a per-token estimate over each completion, in nats, [batch]; its mean is what controllers steer."""
    return masked(kl, mask).sum(dim=1)


class KLController(Protocol):
    """Holds the penalty's weight. `coefficient` is all its state: a checkpoint saves it and sets it again."""

    coefficient: float

    def update(self, kl: float, *, completions: int) -> None:
        """Take note of a rollout's mean divergence, in nats per completion, over so many completions."""


@dataclass(kw_only=True)
class FixedKLController:
    """A weight that stays what it is (Ouyang et al. 2022 use 0.02)."""

    coefficient: float

    def update(self, kl: float, *, completions: int) -> None:
        """Raises ExecutionError if the divergence is not finite."""
        _finite(kl)


@dataclass(kw_only=True)
class AdaptiveKLController:
    """A weight steered towards a target divergence, in proportion to its logarithm (Ziegler et al. 2019, section 2.2).

        error        = clip(kl / target - 1, -0.2, 0.2)
        coefficient *= 1 + error * completions / horizon

    Attributes:
        coefficient: the weight, at first the initial one; above 0, as 0 cannot grow.
        target: nats per completion.
        horizon: completions over which the weight changes by 1 + error. A rollout counts as one horizon at most, so
            the weight falls by a fifth per update at the very worst and stays above 0.
    """

    coefficient: float
    target: float
    horizon: float

    def __post_init__(self) -> None:
        for name in ("coefficient", "target", "horizon"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ExecutionError(f"an adaptive KL penalty needs a {name} above 0, not {value}")

    def update(self, kl: float, *, completions: int) -> None:
        """Raises ExecutionError if the divergence is not finite."""
        error = max(-ERROR_CLIP, min(ERROR_CLIP, _finite(kl) / self.target - 1))
        self.coefficient *= 1 + error * min(1.0, completions / self.horizon)


def _finite(kl: float) -> float:
    if not math.isfinite(kl):
        raise ExecutionError(
            f"the KL divergence from the reference is {kl}: the policy has diverged",
            hint="lower training.learning_rate, or train in bf16 or float32 if this is fp16",
        )
    return kl
