"""From the reward model's score of a completion to a reward for each of its tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mloc_tasks.errors import ExecutionError
from mloc_tasks.executors.ppo.mask import at_least_float32, masked

if TYPE_CHECKING:
    import torch


def adjusted_scores(
    scores: torch.Tensor,
    *,
    lengths: torch.Tensor,
    ended: torch.Tensor,
    clip: float | None = None,
    missing_eos_penalty: float = 0.0,
    length_penalty: float = 0.0,
    free_tokens: int = 0,
) -> torch.Tensor:
    """Scores [batch] as they enter the reward, float32 or float64.

    The score is clipped first, so that a penalty is felt by a completion at the clip too. The missing-EOS penalty is
    one of the details of Huang et al. 2024, "The N+ implementation details of RLHF with PPO" (there a fixed score).

    Args:
        scores: what the reward model says, [batch].
        lengths: tokens of each completion, [batch]. ended: whether it closed with an end token, bool [batch].
        clip: scores are cut to plus or minus this.
        missing_eos_penalty: taken from the score of a completion that did not end.
        length_penalty: taken from the score for each token beyond the first `free_tokens`.

    Raises:
        ExecutionError: a score is NaN or infinite.
    """
    import torch

    if not bool(torch.isfinite(scores).all()):
        row = int(torch.isfinite(scores).logical_not().nonzero()[0, 0])
        raise ExecutionError(
            f"the reward of completion {row} of the rollout is {float(scores[row])}",
            hint="the reward model must give a finite number for every text, the empty one included",
        )
    adjusted = at_least_float32(scores)
    if clip is not None:
        adjusted = adjusted.clamp(-clip, clip)
    adjusted = adjusted - missing_eos_penalty * (~ended).to(adjusted.dtype)
    return adjusted - length_penalty * (lengths - free_tokens).clamp(min=0).to(adjusted.dtype)


def token_rewards(scores: torch.Tensor, kl: torch.Tensor, mask: torch.Tensor, *, coefficient: float) -> torch.Tensor:
    """Rewards [batch, tokens]: -coefficient * kl for each token, and the score on the completion's last one.

    Ziegler et al. 2019, equation 2, spread over tokens as their code and Ouyang et al. 2022 do. A completion without a
    token has no place for its score and gets no reward.

    Args:
        scores: [batch], from `adjusted_scores`. kl: [batch, tokens], from `kl_per_token`.
    """
    import torch

    tokens_left = mask.flip(1).cumsum(1).flip(1)
    last = mask & (tokens_left == 1)
    return torch.where(last, at_least_float32(scores)[:, None], 0.0) - coefficient * masked(kl, mask)
