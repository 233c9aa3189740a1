"""From rows to items: encode, batch by length, generate, and put everything back into input order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mloc_tasks.executors.base import Item
from mloc_tasks.executors.generation.completions import Completion, completed_item, failed_item
from mloc_tasks.executors.generation.decoding import Decoding
from mloc_tasks.executors.generation.prompts import PromptEncoder, RowError
from mloc_tasks.executors.transformers.batching import BatchLimits, plan_batches
from mloc_tasks.executors.transformers.generation import Request, complete, is_out_of_memory
from mloc_tasks.executors.transformers.loading import LoadedModel


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """A row ready to be continued; `index` is its position in the stage's whole input."""

    index: int
    row: Item
    ids: Sequence[int]


@dataclass(frozen=True, kw_only=True)
class Answerer:
    """Answers rows with one loaded model."""

    loaded: LoadedModel
    encoder: PromptEncoder
    decoding: Decoding
    limits: BatchLimits

    def answer(self, rows: Sequence[Item], *, start: int, answered: Callable[[int], None]) -> list[dict[str, Any]]:
        """One item per row, in order; a row that cannot be done has `ok: false` and `error`.

        Args:
            start: index of the first row in the stage's whole input.
            answered: called after each batch with how many more rows are done.
        """
        items: dict[int, dict[str, Any]] = {}
        prompts: list[Prompt] = []
        for index, row in enumerate(rows, start=start):
            try:
                prompts.append(Prompt(index=index, row=row, ids=self.encoder.encode(row)))
            except RowError as error:
                items[index] = failed_item(index, row, str(error))
        answered(len(items))
        lengths = [len(each.ids) for each in prompts]
        for batch in plan_batches(
            lengths, new_tokens=self.decoding.max_tokens, limits=self.limits, samples=self.decoding.n
        ):
            for item in self._items([prompts[position] for position in batch]):
                items[item["index"]] = item
            answered(len(batch))
        return [items[index] for index in range(start, start + len(rows))]

    def _items(self, batch: Sequence[Prompt]) -> Iterator[dict[str, Any]]:
        completions = self._completions(batch)
        if completions is not None:
            n = self.decoding.n
            for place, prompt in enumerate(batch):
                own = completions[place * n : (place + 1) * n]
                yield completed_item(prompt.index, prompt.row, own, prompt_tokens=len(prompt.ids))
        elif len(batch) > 1:
            yield from self._items(batch[: len(batch) // 2])
            yield from self._items(batch[len(batch) // 2 :])
        else:
            prompt = batch[0]
            error = f"out of memory on {self.loaded.device} with {len(prompt.ids)} prompt tokens, alone in its batch"
            yield failed_item(prompt.index, prompt.row, error)

    def _completions(self, batch: Sequence[Prompt]) -> list[Completion] | None:
        """`n` completions for each prompt, one after the other; None when memory did not suffice for the batch."""
        requests = [
            Request(
                prompt=prompt.ids,
                draws=self.decoding.random(prompt.index, sample),
                max_tokens=self._room(len(prompt.ids)),
            )
            for prompt in batch
            for sample in range(self.decoding.n)
        ]
        try:
            return complete(self.loaded, requests, self.decoding)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        # Outside of the handler, whose traceback keeps the batch's tensors alive.
        _release_cached_memory()
        return None

    def _room(self, prompt_tokens: int) -> int:
        context = self.loaded.context_length
        return self.decoding.max_tokens if context is None else min(self.decoding.max_tokens, context - prompt_tokens)


def _release_cached_memory() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()
