"""From completions and their scores to what the update learns from: rewards, values, advantages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from mloc_tasks.executors.ppo.advantages import generalised_advantages
from mloc_tasks.executors.ppo.group import Group
from mloc_tasks.executors.ppo.kl import kl_per_token
from mloc_tasks.executors.ppo.mask import whitened
from mloc_tasks.executors.ppo.policy import Policy, Text, completion_mask
from mloc_tasks.executors.ppo.rewards import adjusted_scores, token_rewards
from mloc_tasks.executors.ppo.rollout import Sample
from mloc_tasks.executors.ppo.settings import PpoSettings

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Experience:
    """A rollout as it is learned from; tensors are [rows, tokens] but `scores` and `ended`, [rows]."""

    texts: Sequence[Text]
    mask: torch.Tensor
    scores: torch.Tensor
    ended: torch.Tensor
    logprobs: torch.Tensor
    values: torch.Tensor
    kl: torch.Tensor
    advantages: torch.Tensor
    returns: torch.Tensor


class Estimated(NamedTuple):
    """Of each token of one completion: by the policy that drew it, and by the reference."""

    logprobs: Sequence[float]
    values: Sequence[float]
    reference_logprobs: Sequence[float]


def estimated(policy: Policy, samples: Sequence[Sample]) -> list[Estimated]:
    """What the policy and its reference make of these completions."""
    if not samples:
        return []
    texts = [Text(sample.prompt, sample.completion) for sample in samples]
    reference = policy.reference_logprobs(texts).tolist()
    if policy.exact:
        # The rollout has computed the rest already: the same numbers up to the rounding of float32.
        return [Estimated(each.logprobs, each.values, row) for each, row in zip(samples, reference, strict=True)]
    # In 16 bits, one token at a time and all at once differ so much that the first ratios would not be near 1.
    own = policy.estimates_without_gradient(texts)
    return [Estimated(*row) for row in zip(own.logprobs.tolist(), own.values.tolist(), reference, strict=True)]


def together(
    group: Group, samples: Sequence[Sample], scores: Sequence[float], estimated: Sequence[Estimated]
) -> tuple[list[Sample], list[float], list[Estimated]]:
    """The whole rollout, of which each process has drawn and scored its share."""
    whole = group.whole(list(zip(samples, scores, estimated, strict=True)))
    return [row[0] for row in whole], [row[1] for row in whole], [row[2] for row in whole]


def experience_of(
    samples: Sequence[Sample],
    given_scores: Sequence[float],
    estimated: Sequence[Estimated],
    settings: PpoSettings,
    *,
    kl_coef: float,
    device: torch.device,
) -> Experience:
    """Rewards and advantages of a whole rollout."""
    import torch

    mask = completion_mask([sample.completion for sample in samples], device)
    logprobs, values, reference_logprobs = (_tensor(rows, mask) for rows in zip(*estimated, strict=True))
    scores = torch.tensor(given_scores, dtype=torch.float32, device=device)
    ended = torch.tensor([sample.ended for sample in samples], device=device)
    adjusted = adjusted_scores(
        scores,
        lengths=mask.sum(dim=1),
        ended=ended,
        clip=settings.score_clip,
        missing_eos_penalty=settings.missing_eos_penalty,
        length_penalty=settings.length_penalty,
        free_tokens=settings.free_tokens,
    )
    kl = kl_per_token(logprobs, reference_logprobs, mask)
    rewards = token_rewards(adjusted, kl, mask, coefficient=kl_coef)
    if settings.whiten_rewards:
        # The mean stays: a reward's sign means something (Huang et al. 2023, "The N implementation details of RLHF
        # with PPO").
        rewards = whitened(rewards, mask, shift_mean=False)
    advantages, returns = generalised_advantages(rewards, values, mask, gamma=settings.gamma, lam=settings.lam)
    if settings.whiten_advantages:
        # Over the whole rollout, not each mini-batch: the same token weighs the same in every pass (as in the code of
        # Ziegler et al. 2019).
        advantages = whitened(advantages, mask)
    return Experience(
        texts=[Text(sample.prompt, sample.completion) for sample in samples],
        mask=mask,
        scores=scores,
        ended=ended,
        logprobs=logprobs,
        values=values,
        kl=kl,
        advantages=advantages,
        returns=returns,
    )


def _tensor(rows: Sequence[Sequence[float]], mask: torch.Tensor) -> torch.Tensor:
    """[rows, tokens], float32, 0 outside the mask."""
    import torch

    numbers = [list(row[:length]) for row, length in zip(rows, mask.sum(dim=1).tolist(), strict=True)]
    flat = torch.tensor([number for row in numbers for number in row], dtype=torch.float32, device=mask.device)
    return torch.zeros(mask.shape, device=mask.device).masked_scatter(mask, flat)
