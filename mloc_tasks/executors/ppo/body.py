"""A causal language model as PPO computes it: hidden states first, logits only where they are needed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from mloc_tasks.errors import ModelError
from mloc_tasks.executors.ppo.token_choices import head_choices, token_choices

if TYPE_CHECKING:
    import torch

Autocast = Callable[[], AbstractContextManager[Any]]

SAME_LOGITS = 1e-2
"""Relative difference that bfloat16 may make between two ways to the same logits."""


class Body:
    """A causal language model in two parts, so that its head is computed only where a token was chosen.

    A few architectures change the logits behind the head, such as by a soft cap. Whether this one does is tried at the
    start; its own forward pass is then used as a whole.
    """

    def __init__(self, causal: Any, autocast: Autocast) -> None:
        self._causal = causal
        self._autocast = autocast
        self._head = causal.get_output_embeddings()
        if self._head is None:
            raise ModelError(f"{type(causal).__name__} has no language-model head", hint="ppo trains causal models")
        self.vocabulary, self.width = self._head.weight.shape
        self._parted = self._is_parted()

    @property
    def device(self) -> torch.device:
        found: torch.device = self._causal.device
        return found

    def choices(
        self, ids: torch.Tensor, chosen: torch.Tensor, tokens: torch.Tensor, temperature: float
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
        """Hidden states [places, width], and log-probabilities and entropies of `tokens` [places].

        Args:
            ids: [rows, width], padded on the right. Padding lies behind all that a causal model looks at, so no
                attention mask is needed, and attention without one is the fastest.
            chosen: where the next token was chosen by the policy, bool [rows, width].
        """
        with self._autocast():
            if self._parted:
                hidden = self._causal.base_model(input_ids=ids, use_cache=False).last_hidden_state[chosen]
                made = head_choices(hidden, tokens, self._head, vocabulary=self.vocabulary, temperature=temperature)
                return hidden, made
            logits, hidden, _ = self._whole(input_ids=ids, use_cache=False)
            whole = token_choices(logits[chosen][None], tokens[None], tokens[None] == tokens, temperature=temperature)
            return hidden[chosen], (whole.logprobs[0], whole.entropies[0])

    def last(
        self, ids: torch.Tensor, attention_mask: torch.Tensor, positions: torch.Tensor, cache: Any
    ) -> tuple[torch.Tensor, torch.Tensor, Any]:
        """Hidden state [rows, width] and logits [rows, vocabulary] at the last of `ids`, and the cache."""
        arguments = {
            "input_ids": ids,
            "attention_mask": attention_mask,
            "position_ids": positions,
            "past_key_values": cache,
            "use_cache": True,
        }
        with self._autocast():
            if self._parted:
                output = self._causal.base_model(**arguments)
                hidden = output.last_hidden_state[:, -1]
                return hidden, self._head(hidden), output.past_key_values
            logits, hidden, cache = self._whole(**arguments)
            return hidden[:, -1], logits[:, -1], cache

    def _whole(self, **arguments: Any) -> tuple[torch.Tensor, torch.Tensor, Any]:
        """Logits, hidden states and cache by the model's own forward pass."""
        seen: list[torch.Tensor] = []
        hook = self._head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        try:
            output = self._causal(**arguments)
        finally:
            hook.remove()
        return output.logits, seen[0], getattr(output, "past_key_values", None)

    def _is_parted(self) -> bool:
        import torch

        if self._causal.base_model is self._causal:
            return False
        ids = torch.arange(min(8, self.vocabulary), device=self.device)[None]
        with torch.no_grad(), self._autocast():
            logits, _, _ = self._whole(input_ids=ids, use_cache=False)
            parted = self._head(self._causal.base_model(input_ids=ids, use_cache=False).last_hidden_state)
        return bool((logits - parted).abs().max() <= SAME_LOGITS * logits.abs().max())
