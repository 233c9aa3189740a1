"""Completions drawn from the policy, with what it thought of each token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mloc_tasks.executors.generation.decoding import Decoding
from mloc_tasks.executors.ppo.policy import NextToken, Policy
from mloc_tasks.executors.transformers.stopping import Ending, StopWatcher, cut_at_stop
from mloc_tasks.executors.transformers.token_choice import TokenChooser

if TYPE_CHECKING:
    import torch

SIDE_BY_SIDE = 128
"""Completions generated at once."""
SHRINKS_AT = 0.75
"""Rows that have ended leave the batch once no more than this share of it goes on."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One completion.

    Attributes:
        prompt, completion: token ids; a closing end token is part of the completion, for it was chosen too.
        text: the completion as the reward model reads it: without special tokens, cut before a stop string.
        ended: it closed with an end token or a stop string, before the limit of its length.
        logprobs, values: of each token of the completion, by the policy that drew it; in nats under the full
            distribution at the temperature, of which `top_k` and the like draw only a part.
    """

    prompt: Sequence[int]
    completion: Sequence[int]
    text: str
    ended: bool
    logprobs: Sequence[float]
    values: Sequence[float]


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """Draws completions.

    Every completion has a random stream of its own, a function of the seed, the step and its place in the rollout: it
    is the same whatever process draws it beside whichever others, and a resumed run needs no saved random state.

    Attributes:
        end_tokens: ids that end a completion. pad_token: any id that the model takes.
    """

    policy: Policy
    tokenizer: Any
    decoding: Decoding
    end_tokens: tuple[int, ...]
    pad_token: int

    def draw(self, prompts: Sequence[Sequence[int]], *, step: int, places: Sequence[int]) -> list[Sample]:
        """A completion for each prompt. `places`: their positions in the whole rollout of this step."""
        # Prompts of like length together, or the shorter ones wait for the longest in columns of padding.
        order = sorted(range(len(prompts)), key=lambda row: len(prompts[row]))
        made: dict[int, Sample] = {}
        for begin in range(0, len(order), SIDE_BY_SIDE):
            rows = order[begin : begin + SIDE_BY_SIDE]
            batch = _Batch(self, [prompts[row] for row in rows], step=step, places=[places[row] for row in rows])
            made.update(zip(rows, batch.complete(), strict=True))
        return [made[row] for row in range(len(prompts))]

    def text(self, tokens: Sequence[int]) -> str:
        return str(self.tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False))


class _Batch:
    """Some completions in the making, side by side."""

    def __init__(self, sampler: Sampler, prompts: Sequence[Sequence[int]], *, step: int, places: Sequence[int]) -> None:
        self._sampler = sampler
        self._prompts = prompts
        decoding = sampler.decoding
        ids, mask = _left_padded(prompts, pad=sampler.pad_token, device=sampler.policy.device)
        self._written, self._mask = ids, mask
        self._width = ids.shape[1]
        self._watcher = StopWatcher(
            sampler.text,
            prompt_width=self._width,
            max_tokens=[decoding.max_tokens] * len(prompts),
            end_tokens=() if decoding.ignore_eos else sampler.end_tokens,
            stop=decoding.stop,
            min_tokens=decoding.min_tokens,
        )
        self._chooser = TokenChooser(
            decoding=decoding,
            prompts=prompts,
            draws=[decoding.random(step, place) for place in places],
            prompt_width=self._width,
            end_tokens=sampler.end_tokens,
        )

    def complete(self) -> list[Sample]:
        """Draw until every row has ended."""
        import torch

        going = torch.arange(len(self._prompts), device=self._written.device)  # rows that the model still computes
        new, mask, cache = self._written, self._mask, None
        logprobs: list[torch.Tensor] = []
        values: list[torch.Tensor] = []
        with torch.no_grad():
            while not all(self._watcher.endings):
                positions = mask.cumsum(dim=1)[:, -new.shape[1] :] - 1
                made = self._sampler.policy.next_token(
                    new, attention_mask=mask, positions=positions.clamp(min=0), cache=cache
                )
                tokens = self._choose(made, going)
                logprobs.append(self._logprobs(made, going, tokens))
                values.append(self._of_all(made.values, going))
                cache = made.cache
                going, mask, cache = self._shrunk(going, mask, cache)
                new = tokens[going][:, None]
                mask = torch.cat([mask, torch.ones_like(new)], dim=1)
        return self._samples(torch.stack(logprobs, dim=1).tolist(), torch.stack(values, dim=1).tolist())

    def _choose(self, made: NextToken, going: torch.Tensor) -> torch.Tensor:
        """The next token of every row, [all rows]; of rows that have ended, any."""
        import torch

        scores = self._of_all(made.logits, going)
        tokens: torch.Tensor = self._chooser(self._written, scores).argmax(dim=-1)
        self._written = torch.cat([self._written, tokens[:, None]], dim=1)
        self._watcher(self._written, None)
        return tokens

    def _logprobs(self, made: NextToken, going: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        import torch

        scaled = made.logits.float() / self._sampler.policy.temperature
        of_token = torch.log_softmax(scaled, dim=-1).gather(1, tokens[going][:, None]).squeeze(1)
        return self._of_all(of_token, going)

    def _of_all(self, some: torch.Tensor, going: torch.Tensor) -> torch.Tensor:
        """What is known of the rows that go on, among all rows; 0 for the others."""
        if len(some) == len(self._prompts):
            return some
        return some.new_zeros((len(self._prompts), *some.shape[1:])).index_copy_(0, going, some)

    def _shrunk(self, going: torch.Tensor, mask: torch.Tensor, cache: Any) -> tuple[torch.Tensor, torch.Tensor, Any]:
        """The batch without the rows that have ended, where it has become worth it."""
        import torch

        endings = self._watcher.endings
        kept = [place for place, row in enumerate(going.tolist()) if endings[row] is None]
        if not kept or len(kept) > SHRINKS_AT * len(going) or not hasattr(cache, "batch_select_indices"):
            return going, mask, cache
        places = torch.tensor(kept, device=going.device)
        cache.batch_select_indices(places)
        return going[places], mask[places], cache

    def _samples(self, logprobs: list[list[float]], values: list[list[float]]) -> list[Sample]:
        written = self._written[:, self._width :].tolist()
        return [
            self._sample(*row)
            for row in zip(self._prompts, written, self._watcher.endings, logprobs, values, strict=True)
        ]

    def _sample(
        self,
        prompt: Sequence[int],
        tokens: list[int],
        ending: Ending | None,
        logprobs: list[float],
        values: list[float],
    ) -> Sample:
        assert ending is not None  # `complete` has waited for it
        text = self._sampler.text(tokens[: ending.tokens])
        if ending.by_stop_string and (cut := cut_at_stop(text, self._sampler.decoding.stop)) is not None:
            text = cut
        return Sample(
            prompt=prompt,
            completion=tokens[: ending.tokens],
            text=text,
            ended=ending.reason == "stop",
            logprobs=logprobs[: ending.tokens],
            values=values[: ending.tokens],
        )


def _left_padded(
    prompts: Sequence[Sequence[int]], *, pad: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask, both [rows, longest prompt]: prompts end where generation begins."""
    import torch

    width = max(map(len, prompts))
    ids = torch.full((len(prompts), width), pad, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.tensor(prompt)
        mask[row, width - len(prompt) :] = 1
    return ids.to(device), mask.to(device)
