"""Log-probabilities and entropies of the policy at the tokens it chose, piece by piece.

A log_softmax over [batch, tokens, vocabulary] in float32 is by far the largest tensor of a PPO step: 64 completions
of 256 tokens over a vocabulary of 50,000 take 3.3 GB. Here the rows are taken in pieces, and each piece is computed
again in the backward pass (Chen et al. 2016, "Training deep nets with sublinear memory cost") instead of being kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from mloc_tasks.executors.ppo.mask import at_least_float32

if TYPE_CHECKING:
    import torch

PIECE_VALUES = 2**24
"""Logits in one piece: 64 MiB in float32."""


class TokenChoices(NamedTuple):
    """Both [batch, tokens] in nats, float32 or float64, 0 outside the mask."""

    logprobs: torch.Tensor
    entropies: torch.Tensor


def token_choices(
    logits: torch.Tensor,
    tokens: torch.Tensor,
    mask: torch.Tensor,
    *,
    temperature: float = 1.0,
    piece_values: int = PIECE_VALUES,
) -> TokenChoices:
    """What the policy gave the chosen tokens, and how undecided it was; differentiable.

    The policy is softmax(logits / temperature): the distribution the rollout was sampled from, so that the first ratio
    is 1 (Huang et al. 2023, "The N implementation details of RLHF with PPO").

    Args:
        logits: [batch, tokens, vocabulary], each for the token at its own place (already shifted); any float type.
            -inf bars a token. Padding's logits are never read.
        tokens: chosen ids, [batch, tokens]; outside the mask any number, such as -100.
        piece_values: logits computed on at a time.
    """
    import torch
    from torch.utils.checkpoint import checkpoint

    vocabulary = logits.shape[-1]
    count = max(1, -(-mask.numel() // max(1, piece_values // vocabulary)))
    # Not slices: `chunk`'s backward pass joins the pieces' gradients once, each slice's would be a full-sized one.
    pieces = zip(
        logits.reshape(-1, vocabulary).chunk(count),
        tokens.reshape(-1).chunk(count),
        mask.reshape(-1).chunk(count),
        strict=True,
    )
    again = torch.is_grad_enabled() and logits.requires_grad
    computed: list[tuple[torch.Tensor, torch.Tensor]] = []
    for piece in pieces:
        if again:
            computed.append(checkpoint(_choices, *piece, temperature, use_reentrant=False, preserve_rng_state=False))
        else:
            computed.append(_choices(*piece, temperature))
    logprobs, entropies = (torch.cat(parts).reshape(mask.shape) for parts in zip(*computed, strict=True))
    return TokenChoices(logprobs, entropies)


def _choices(
    logits: torch.Tensor, tokens: torch.Tensor, mask: torch.Tensor, temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """For rows [rows, vocabulary], [rows], [rows]."""
    import torch

    scaled = at_least_float32(logits[mask]) / temperature
    logs = scaled - scaled.logsumexp(dim=-1, keepdim=True)
    probabilities = logs.exp()
    # A barred token has probability 0 and logarithm -inf, whose product would be NaN.
    entropies = -(probabilities * logs.masked_fill(probabilities == 0, 0.0)).sum(dim=-1)
    logprobs = logs.gather(-1, tokens[mask][:, None]).squeeze(-1)
    blank = torch.zeros(mask.shape, dtype=logs.dtype, device=logs.device)
    return blank.masked_scatter(mask, logprobs), blank.masked_scatter(mask, entropies)
