"""One backbone in three roles: the policy, its value function, and, unless all weights are trained, the reference."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from mloc_tasks.executors.ppo.body import Autocast, Body

if TYPE_CHECKING:
    import torch

FORWARD_TOKENS = 4096
"""Tokens of one forward pass without gradient, padding counted."""
VALUE_INPUT_LENGTH = 10.0
"""Length that the value head's input is scaled to. A step of Adam changes a value by the learning rate times the sum of
the input's absolute values; that of the bare hidden state depends on the model's width and last norm, and overshot."""


class Text(NamedTuple):
    """A prompt and what was made of it, as token ids."""

    prompt: Sequence[int]
    completion: Sequence[int]


class Estimates(NamedTuple):
    """About the completions' tokens, all [rows, tokens] in float32 or float64, 0 behind a completion's end."""

    logprobs: torch.Tensor
    entropies: torch.Tensor
    values: torch.Tensor


@dataclass(frozen=True, kw_only=True)
class NextToken:
    """Logits [rows, vocabulary] and value [rows] before the next token, and the model's key-value cache."""

    logits: torch.Tensor
    values: torch.Tensor
    cache: Any


class Policy:
    """A causal language model that is trained, with a value head on its last hidden state.

    The hidden state is detached: the value's error moves the head alone. So policy and value need one forward pass and
    no weight between them, and the value loss cannot pull the backbone away from what it writes. The head computes in
    float32 and starts at zero: the first advantages are made of rewards alone.

    No dropout, in training neither: the ratio compares two policies, not two draws of a mask (Huang et al. 2024, "The
    N+ implementation details of RLHF with PPO").

    Args:
        model: a Transformers model, or the PEFT model around it.
        new_adapter: the model has an adapter that changes nothing yet: switched off, it leaves the reference, also when
            it is trained. Without, a copy of what is trained is kept.
        temperature: of the distribution that is sampled from and learned; the reference's too.
        autocast: gives the context in which the model computes. exact: that is float32, so that a token's estimates are
            the same up to rounding whether it is computed alone or with others.
        checkpointing: computes activations again in the backward pass instead of keeping them.

    Attributes:
        first_weights: the copy of what is trained, by name; empty where the reference is the model without adapter.
    """

    def __init__(
        self,
        model: Any,
        *,
        new_adapter: bool = False,
        temperature: float = 1.0,
        autocast: Autocast = nullcontext,
        exact: bool = True,
        checkpointing: bool = False,
    ) -> None:
        import torch

        self.model = model
        self.temperature = temperature
        self.exact = exact
        self._checkpointing = checkpointing
        model.eval()
        causal = model.get_base_model() if hasattr(model, "get_base_model") else model
        if checkpointing:
            causal.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        self._body = Body(causal, autocast)
        weights = {} if new_adapter else self.trained_weights()
        self.first_weights = {name: each.detach().clone() for name, each in weights.items()}
        self.value_head = torch.nn.Linear(self._body.width, 1, device=self.device)
        torch.nn.init.zeros_(self.value_head.weight)
        torch.nn.init.zeros_(self.value_head.bias)

    @property
    def device(self) -> torch.device:
        return self._body.device

    def trained_weights(self) -> dict[str, torch.nn.Parameter]:
        """The policy's weights that are trained, by name; the value head's are not among them."""
        return {name: weights for name, weights in self.model.named_parameters() if weights.requires_grad}

    def estimates(self, texts: Sequence[Text]) -> Estimates:
        """Log-probabilities, entropies and values at the completions' tokens; differentiable."""
        with self._recomputing():
            return self._padded(texts, *self._run(texts, values=True))

    def estimates_without_gradient(self, texts: Sequence[Text]) -> Estimates:
        """As `estimates`, for any number of rows: those of like length are computed together, a few at a time."""
        return self._in_passes(texts, values=True)

    def reference_logprobs(self, texts: Sequence[Text]) -> torch.Tensor:
        """What the model gave the completions' tokens before its training, [rows, tokens]; without gradient."""
        with self._as_reference():
            return self._in_passes(texts, values=False).logprobs

    def next_token(
        self, ids: torch.Tensor, *, attention_mask: torch.Tensor, positions: torch.Tensor, cache: Any
    ) -> NextToken:
        """One step of generation: `ids` [rows, new tokens] go behind what `cache` holds (None: nothing)."""
        hidden, logits, cache = self._body.last(ids, attention_mask, positions, cache)
        return NextToken(logits=logits, values=self._values(hidden), cache=cache)

    def _in_passes(self, texts: Sequence[Text], *, values: bool) -> Estimates:
        import torch

        order = sorted(range(len(texts)), key=lambda row: -len(texts[row].prompt) - len(texts[row].completion))
        made: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = [()] * len(texts)  # type: ignore[list-item]
        with torch.no_grad():
            while order:
                longest = sum(map(len, texts[order[0]]))
                rows = [order.pop(0) for _ in range(min(len(order), max(1, FORWARD_TOKENS // longest)))]
                flat = self._run([texts[row] for row in rows], values=values)
                lengths = [len(texts[row].completion) for row in rows]
                for row, *parts in zip(rows, *(torch.split(each, lengths) for each in flat), strict=True):
                    made[row] = (parts[0], parts[1], parts[2])
        flat_in_order = (torch.cat([each[kind] for each in made]) for kind in range(3))
        return self._padded(texts, *flat_in_order)

    def _run(self, texts: Sequence[Text], *, values: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Log-probabilities, entropies and values of all completions' tokens, one row after the other, [tokens]."""
        import torch

        ids, chosen = _right_padded(texts, self.device)
        tokens = torch.tensor([token for text in texts for token in text.completion], device=self.device)
        hidden, choices = self._body.choices(ids, chosen, tokens, self.temperature)
        return *choices, self._values(hidden) if values else torch.zeros_like(choices[0])

    def _values(self, hidden: torch.Tensor) -> torch.Tensor:
        import torch

        with torch.autocast(self.device.type, enabled=False):
            seen = torch.nn.functional.normalize(hidden.detach().to(self.value_head.weight.dtype), dim=-1)
            return self.value_head(seen * VALUE_INPUT_LENGTH).squeeze(-1)  # type: ignore[no-any-return]

    def _padded(self, texts: Sequence[Text], *flat: torch.Tensor) -> Estimates:
        mask = completion_mask([text.completion for text in texts], self.device)
        blank = mask.new_zeros(mask.shape, dtype=flat[0].dtype)
        return Estimates(*(blank.masked_scatter(mask, each.to(blank.dtype)) for each in flat))

    @contextmanager
    def _as_reference(self) -> Iterator[None]:
        """Within it the model is what it was before its training."""
        if not self.first_weights:
            with self.model.disable_adapter():
                yield
            return
        trained = self.trained_weights()
        now = {name: weights.data for name, weights in trained.items()}
        try:
            for name, weights in trained.items():
                weights.data = self.first_weights[name]
            yield
        finally:
            for name, weights in trained.items():
                weights.data = now[name]

    @contextmanager
    def _recomputing(self) -> Iterator[None]:
        """Transformers' layers recompute only where they believe to be in training; their parts are not told."""
        layers = [each for each in self.model.modules() if hasattr(type(each), "gradient_checkpointing")]
        for layer in layers if self._checkpointing else ():
            layer.training = True
        try:
            yield
        finally:
            for layer in layers if self._checkpointing else ():
                layer.training = False


def completion_mask(completions: Sequence[Sequence[int]], device: torch.device) -> torch.Tensor:
    """True on the tokens of each completion, bool [rows, longest completion]."""
    import torch

    lengths = torch.tensor([len(each) for each in completions], device=device)
    return torch.arange(max(map(len, completions), default=0), device=device)[None] < lengths[:, None]


def _right_padded(texts: Sequence[Text], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids, and where the next token was chosen, both [rows, longest text - 1]: the last token leads nowhere."""
    import torch

    width = max(sum(map(len, text)) for text in texts) - 1
    ids = torch.zeros((len(texts), max(width, 1)), dtype=torch.long)
    chosen = torch.zeros_like(ids, dtype=torch.bool)
    for row, (prompt, completion) in enumerate(texts):
        whole = [*prompt, *completion][: ids.shape[1]]
        ids[row, : len(whole)] = torch.tensor(whole)
        chosen[row, len(prompt) - 1 : len(prompt) - 1 + len(completion)] = True
    return ids.to(device), chosen.to(device)
