"""Log-probabilities and entropies of the policy at the tokens it chose, piece by piece.

A log_softmax over [batch, tokens, vocabulary] in float32 is by far the largest tensor of a PPO step: 64 completions
of 256 tokens over a vocabulary of 50,000 take 3.3 GB. Here the rows are taken in pieces, and each piece is computed
again in the backward pass (Chen et al. 2016, "Training deep nets with sublinear memory cost") instead of being kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
    width = max(1, min(mask.shape[1], piece_values // vocabulary))
    rows = max(1, piece_values // (width * vocabulary))
    again = torch.is_grad_enabled() and logits.requires_grad
    batches: list[tuple[torch.Tensor, torch.Tensor]] = []
    for batch in _pieces((logits, tokens, mask), size=rows, dim=0):
        parts: list[tuple[torch.Tensor, torch.Tensor]] = []
        for piece in _pieces(batch, size=width, dim=1):
            if again:
                parts.append(checkpoint(_choices, *piece, temperature, use_reentrant=False, preserve_rng_state=False))
            else:
                parts.append(_choices(*piece, temperature))
        logprobs, entropies = zip(*parts, strict=True)
        batches.append((torch.cat(logprobs, dim=1), torch.cat(entropies, dim=1)))
    logprobs, entropies = zip(*batches, strict=True)
    return TokenChoices(torch.cat(logprobs), torch.cat(entropies))


def head_choices(
    hidden: torch.Tensor,
    tokens: torch.Tensor,
    head: Callable[[torch.Tensor], torch.Tensor],
    *,
    vocabulary: int,
    temperature: float = 1.0,
    piece_values: int = PIECE_VALUES,
) -> TokenChoices:
    """As `token_choices`, from hidden states: no logits outlive their piece, in neither pass.

    Args:
        hidden: of the places whose next token was chosen, one after the other, [places, width].
        tokens: chosen there, [places].
        head: from hidden states to logits, [places, vocabulary].

    Returns both for each place, [places].
    """
    import torch
    from torch.utils.checkpoint import checkpoint

    def choices(hidden: torch.Tensor, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return _choices(head(hidden), tokens, torch.ones_like(tokens, dtype=torch.bool), temperature)

    count = max(1, -(-len(tokens) * vocabulary // piece_values))
    logprobs, entropies = [], []
    for piece in zip(hidden.chunk(count), tokens.chunk(count), strict=True):
        if torch.is_grad_enabled():
            made = checkpoint(choices, *piece, use_reentrant=False, preserve_rng_state=False)
        else:
            made = choices(*piece)
        logprobs.append(made[0])
        entropies.append(made[1])
    return TokenChoices(torch.cat(logprobs), torch.cat(entropies))


def _pieces(
    tensors: tuple[torch.Tensor, ...], *, size: int, dim: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Views of each tensor, `size` long at most; those of the same place together.

    Not by slicing: `chunk`'s backward pass joins the pieces' gradients once, each slice's would be a full-sized one.
    Nor flattened first, which would copy logits whose last position has been cut off.
    """
    count = max(1, -(-tensors[0].shape[dim] // size))
    logits, tokens, mask = (tensor.chunk(count, dim=dim) for tensor in tensors)
    return zip(logits, tokens, mask, strict=True)


def _choices(
    logits: torch.Tensor, tokens: torch.Tensor, mask: torch.Tensor, temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Both [rows, width], for [rows, width, vocabulary], [rows, width], [rows, width]."""
    import torch

    scaled = at_least_float32(logits[mask]) / temperature
    logs = scaled - scaled.logsumexp(dim=-1, keepdim=True)
    probabilities = logs.exp()
    # A barred token has probability 0 and logarithm -inf, whose product would be NaN.
    entropies = -(probabilities * logs.masked_fill(probabilities == 0, 0.0)).sum(dim=-1)
    logprobs = logs.gather(-1, tokens[mask][:, None]).squeeze(-1)
    blank = torch.zeros(mask.shape, dtype=logs.dtype, device=logs.device)
    return blank.masked_scatter(mask, logprobs), blank.masked_scatter(mask, entropies)
