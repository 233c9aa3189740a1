"""From rows to vectors: measured, batched by length, and put back into input order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mloc_tasks.executors.base import Item
from mloc_tasks.executors.generation.completions import failed_item
from mloc_tasks.executors.transformers.batching import BatchLimits, plan_batches
from mloc_tasks.executors.transformers.generation import is_out_of_memory

if TYPE_CHECKING:
    from mloc_tasks.executors.embedding.encoder import Encoder, Vectors


@dataclass(frozen=True, slots=True, kw_only=True)
class TextRow:
    """A row that can be encoded: its position among those handed in, its text, and how many tokens it has."""

    position: int
    text: str
    tokens: int


@dataclass(frozen=True, kw_only=True)
class Embedder:
    """Makes vectors of rows with one loaded model.

    Attributes:
        max_length: tokens of a row at most.
        truncate: whether a longer row is cut, and not a failed item.
        dimensions: numbers of each vector that are kept.
        normalize: whether vectors are scaled to length 1.
        limits: the size of a batch.
    """

    encoder: Encoder
    max_length: int | None
    truncate: bool
    dimensions: int
    normalize: bool
    limits: BatchLimits

    def embed(
        self, rows: Sequence[Item], *, start: int, done: Callable[[int], None]
    ) -> tuple[list[dict[str, Any]], Vectors]:
        """An item for each row, and the vectors, shape [rows, dimensions]; NaN where the item has `ok: false`.

        Args:
            start: index of the first row in the stage's whole input.
            done: called after each batch with how many more rows are done.
        """
        import numpy as np

        vectors = np.full((len(rows), self.dimensions), np.nan, dtype=np.float32)
        texts, errors = self._sorted_out(rows)
        done(len(errors))
        for batch in plan_batches([self._used(each.tokens) for each in texts], new_tokens=0, limits=self.limits):
            chosen = [texts[number] for number in batch]
            for row, vector in zip(chosen, self._encoded(chosen), strict=True):
                if vector is None:
                    errors[row.position] = f"out of memory with {self._used(row.tokens)} tokens, alone in its batch"
                elif not np.isfinite(vector).all():
                    errors[row.position] = "the model gave numbers that are not finite"
                else:
                    vectors[row.position] = vector
            done(len(batch))
        tokens = {each.position: each.tokens for each in texts}
        items = [
            failed_item(start + position, row, errors[position])
            if position in errors
            else self._item(start + position, row, tokens[position])
            for position, row in enumerate(rows)
        ]
        return items, vectors

    def _sorted_out(self, rows: Sequence[Item]) -> tuple[list[TextRow], dict[int, str]]:
        """The rows that can be encoded, and what is wrong with the others, by position."""
        errors = {position: _NO_TEXT for position, row in enumerate(rows) if not isinstance(row, str)}
        texts = [(position, row) for position, row in enumerate(rows) if isinstance(row, str)]
        lengths = self.encoder.lengths([text for _, text in texts]) if texts else []
        found = []
        for (position, text), tokens in zip(texts, lengths, strict=True):
            if not text.strip():
                errors[position] = "the row is empty: there is nothing to embed"
            elif not self.truncate and self.max_length is not None and tokens > self.max_length:
                errors[position] = f"the row has {tokens} tokens, more than {self.max_length}"
            else:
                found.append(TextRow(position=position, text=text, tokens=tokens))
        return found, errors

    def _encoded(self, batch: Sequence[TextRow]) -> Iterator[Vectors | None]:
        """The vector of each row; None where memory did not suffice for it alone."""
        vectors = self._tried(batch)
        if vectors is not None:
            yield from vectors
        elif len(batch) > 1:
            yield from self._encoded(batch[: len(batch) // 2])
            yield from self._encoded(batch[len(batch) // 2 :])
        else:
            yield None

    def _tried(self, batch: Sequence[TextRow]) -> Vectors | None:
        try:
            return self._finished(self.encoder.encode([each.text for each in batch], max_length=self.max_length))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        # Outside of the handler, whose traceback keeps the batch's tensors alive.
        _release_cached_memory()
        return None

    def _finished(self, vectors: Vectors) -> Vectors:
        """Cut first and scaled then, as models trained for fewer dimensions are used (Kusupati et al. 2022)."""
        import numpy as np

        vectors = vectors[:, : self.dimensions]
        if self.normalize:
            lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
            vectors = vectors / np.maximum(lengths, np.finfo(np.float32).tiny)
        return vectors

    def _item(self, index: int, row: Item, tokens: int) -> dict[str, Any]:
        used = self._used(tokens)
        item: dict[str, Any] = {"index": index, "input": row}
        if used < tokens:
            item["truncated"] = True
        return {**item, "usage": {"prompt_tokens": used, "completion_tokens": 0, "total_tokens": used}}

    def _used(self, tokens: int) -> int:
        return tokens if self.max_length is None else min(tokens, self.max_length)


_NO_TEXT = "the row is a list of chat messages; embedding takes text"


def _release_cached_memory() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()
