"""When a completion ends, decided row by row at every step of a batch."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mloc_tasks.executors.generation.completions import FinishReason

if TYPE_CHECKING:
    import torch

# A stop string of b bytes spans at most b tokens; the rest makes room for a character cut at the tail's begin.
_TAIL_SLACK_TOKENS = 8


@dataclass(frozen=True)
class Ending:
    """How a completion ended: tokens generated until then (an end-of-sequence token included), and why."""

    tokens: int
    reason: FinishReason
    by_stop_string: bool = False


class StopWatcher:
    """A stopping criterion of `generate` that remembers each row's own end; what comes after it is to be ignored.

    Args:
        decode: token ids to text, special tokens left out.
        prompt_width: tokens before the first generated one, padding included.
        end_tokens: end-of-sequence ids; empty to go on after them.
        stop: strings that end a row.
        min_tokens: tokens before which none of these counts.
        max_tokens: for each row, the tokens at which it ends for good.
    """

    def __init__(
        self,
        decode: Callable[[list[int]], str],
        *,
        prompt_width: int,
        max_tokens: Sequence[int],
        end_tokens: Collection[int],
        stop: Sequence[str] = (),
        min_tokens: int = 0,
    ) -> None:
        self._decode = decode
        self._prompt_width = prompt_width
        self._max_tokens = max_tokens
        self._end_tokens = frozenset(end_tokens)
        self._stop = tuple(stop)
        self._min_tokens = min_tokens
        self._tail = max((len(each.encode()) for each in stop), default=0) + _TAIL_SLACK_TOKENS
        self.endings: list[Ending | None] = [None] * len(max_tokens)

    def __call__(self, input_ids: torch.Tensor, scores: object, **_: object) -> torch.Tensor:
        """Look at the newest token of each row; True for rows that have ended."""
        import torch

        self.observe(
            input_ids[:, max(self._prompt_width, input_ids.shape[1] - self._tail) :].tolist(),
            generated=input_ids.shape[1] - self._prompt_width,
        )
        return torch.tensor([each is not None for each in self.endings], device=input_ids.device)

    def observe(self, tails: Sequence[list[int]], *, generated: int) -> None:
        """As a call, on plain lists: each row's last generated ids, and how many it has generated in all."""
        for row, tail in enumerate(tails):
            if self.endings[row] is None:
                self.endings[row] = self._ending(tail, generated, self._max_tokens[row])

    def _ending(self, tail: list[int], generated: int, max_tokens: int) -> Ending | None:
        if generated >= self._min_tokens:
            if tail[-1] in self._end_tokens:
                return Ending(generated, "stop")
            if self._stop and cut_at_stop(self._decode(tail), self._stop) is not None:
                return Ending(generated, "stop", by_stop_string=True)
        return Ending(generated, "length") if generated >= max_tokens else None


def cut_at_stop(text: str, stop: Sequence[str]) -> str | None:
    """`text` up to the first place where any of `stop` begins, or None when there is none."""
    places = [place for place in (text.find(each) for each in stop) if place >= 0]
    return text[: min(places)] if places else None
