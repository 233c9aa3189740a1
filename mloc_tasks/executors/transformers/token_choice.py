"""The choice of the next token for every row of a batch, with randomness that belongs to the row.

`generate` is told to be greedy and gets this as its only logits processor: the processor makes the choice and leaves
the chosen token as the only possible one. Drawing from a random stream per row, instead of one per batch, makes a
row's completion independent of the rows it happens to share a batch with. (Rounding still depends on the batch's
shape: in bfloat16 two nearly equal tokens can swap.)
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mloc_tasks.errors import ExecutionError
from mloc_tasks.executors.generation.decoding import Decoding

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class TokenLogprob:
    """A chosen token, its natural log-probability under the unmodified model, and the likeliest alternatives."""

    token: int
    logprob: float
    top: list[tuple[int, float]]


@dataclass(kw_only=True)
class TokenChooser:
    """A logits processor for one batch.

    Attributes:
        prompts: each row's prompt ids, without padding (so that no penalty falls on the padding token).
        draws: each row's random stream.
        end_tokens: ids barred until `decoding.min_tokens` tokens are there.
        logprobs: per row, one entry for each step so far; filled when `decoding.logprobs` is set.
    """

    decoding: Decoding
    prompts: Sequence[Sequence[int]]
    draws: Sequence[random.Random]
    prompt_width: int
    end_tokens: Sequence[int]
    logprobs: list[list[TokenLogprob]] = field(init=False)

    def __post_init__(self) -> None:
        self.logprobs = [[] for _ in self.prompts]
        self._in_prompt: torch.Tensor | None = None
        self._counts: torch.Tensor | None = None

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """`scores` (rows, vocabulary) of the next token -> the same shape, 0 for the chosen token, -inf elsewhere."""
        import torch

        if input_ids.shape[1] == self.prompt_width and not bool(torch.isfinite(scores).any(dim=-1).all()):
            message = "the model's scores are not finite (NaN) for at least one row"
            raise ExecutionError(message, hint="half precision may overflow: try model.config.bf16, or float32")
        original = scores
        scores = self._penalized(input_ids, scores)
        if input_ids.shape[1] - self.prompt_width < self.decoding.min_tokens and self.end_tokens:
            scores = scores.clone()
            scores[:, list(self.end_tokens)] = float("-inf")
        chosen = scores.argmax(dim=-1) if self.decoding.temperature == 0 else self._drawn(scores)
        if self.decoding.logprobs is not None:
            self._record(original, chosen, self.decoding.logprobs)
        return torch.full_like(scores, float("-inf")).scatter_(1, chosen[:, None], 0.0)

    def _drawn(self, scores: torch.Tensor) -> torch.Tensor:
        """Inverse-transform sampling: the first token whose cumulative probability exceeds the row's draw."""
        import torch

        decoding = self.decoding
        probabilities = torch.softmax(scores.double() / decoding.temperature, dim=-1)
        tokens: torch.Tensor | None = None
        if 0 < decoding.top_k < probabilities.shape[-1]:
            probabilities, tokens = probabilities.topk(decoding.top_k, dim=-1)
            probabilities = probabilities / probabilities.sum(dim=-1, keepdim=True)
        elif decoding.top_p < 1:
            probabilities, tokens = probabilities.sort(dim=-1, descending=True)
        if decoding.top_p < 1:  # keeps the token that crosses the threshold, hence at least one
            before = probabilities.cumsum(dim=-1) - probabilities
            probabilities = probabilities.where(before < decoding.top_p, 0.0)
        if decoding.min_p > 0:
            threshold = decoding.min_p * probabilities.amax(dim=-1, keepdim=True)
            probabilities = probabilities.where(probabilities >= threshold, 0.0)
        cumulative = probabilities.cumsum(dim=-1)
        total = cumulative[:, -1:]
        draws = torch.tensor([[each.random()] for each in self.draws], dtype=torch.float64, device=scores.device)
        # `random()` is below 1; rounding in the product must not reach the total, behind which no token lies.
        place = torch.minimum(draws * total, torch.nextafter(total, torch.zeros_like(total)))
        chosen = torch.searchsorted(cumulative, place, right=True)
        return (chosen if tokens is None else tokens.gather(1, chosen)).squeeze(1)

    def _penalized(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        import torch

        decoding = self.decoding
        if decoding.repetition_penalty == 1 and decoding.presence_penalty == 0 and decoding.frequency_penalty == 0:
            return scores
        if self._counts is None or self._in_prompt is None:
            self._counts = torch.zeros_like(scores)
            self._in_prompt = torch.zeros_like(scores, dtype=torch.bool)
            for row, prompt in enumerate(self.prompts):
                self._in_prompt[row, list(prompt)] = True
        if input_ids.shape[1] > self.prompt_width:
            self._counts.scatter_add_(1, input_ids[:, -1:], torch.ones_like(scores[:, :1]))
        generated = self._counts > 0
        # Keskar et al. 2019 (CTRL), section 4.1: prompt and completion count; the others look at the completion alone.
        scaled = torch.where(scores < 0, scores * decoding.repetition_penalty, scores / decoding.repetition_penalty)
        scores = torch.where(self._in_prompt | generated, scaled, scores)
        return scores - decoding.frequency_penalty * self._counts - decoding.presence_penalty * generated

    def _record(self, scores: torch.Tensor, chosen: torch.Tensor, alternatives: int) -> None:
        import torch

        logprobs = torch.log_softmax(scores, dim=-1)
        of_chosen = logprobs.gather(1, chosen[:, None]).squeeze(1).tolist()
        top = logprobs.topk(alternatives, dim=-1)
        values, ids = top.values.tolist(), top.indices.tolist()
        for row, token in enumerate(chosen.tolist()):
            pairs = list(zip(ids[row], values[row], strict=True))
            self.logprobs[row].append(TokenLogprob(token, of_chosen[row], pairs))
