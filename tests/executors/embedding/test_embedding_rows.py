"""Rows to vectors: order, batches, lengths, and rows that cannot be done."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from mloc_tasks.executors.embedding.rows import Embedder
from mloc_tasks.executors.transformers.batching import BatchLimits


class LengthEncoder:
    """Stands in for a model, which would not run out of memory on demand: a vector is the text's length and letters."""

    dimensions = 4
    pooling = "mean"
    max_length: int | None = None
    limits = BatchLimits(sequences=8, tokens=1_000)

    def __init__(self, *, room: int = 1_000) -> None:
        self.room = room
        self.batches: list[list[str]] = []

    def lengths(self, texts: Sequence[str]) -> list[int]:
        return [len(text) for text in texts]

    def encode(self, texts: Sequence[str], *, max_length: int | None) -> Any:
        cut = [text[:max_length] for text in texts]
        if len(cut) * max(map(len, cut)) > self.room:
            raise MemoryError("out of memory")
        self.batches.append(list(texts))
        rows = [[len(text), text.count("a"), text.count("b"), np.inf if "!" in text else 1] for text in cut]
        return np.asarray(rows, dtype=np.float32)


def embedder(encoder: LengthEncoder, **changes: Any) -> Embedder:
    settings: dict[str, Any] = {
        "encoder": encoder,
        "max_length": None,
        "truncate": True,
        "dimensions": 4,
        "normalize": False,
        "limits": encoder.limits,
    }
    return Embedder(**(settings | changes))


def embed(made: Embedder, rows: Sequence[Any], start: int = 0) -> tuple[list[dict[str, Any]], Any]:
    done: list[int] = []
    items, vectors = made.embed(rows, start=start, done=done.append)
    assert sum(done) == len(rows)
    return items, vectors


def test_vectors_stand_in_input_order_whatever_the_batches() -> None:
    rows = ["aaa", "b", "abababab", "ab", "bbbbb"] * 5
    encoder = LengthEncoder()
    items, vectors = embed(embedder(encoder, limits=BatchLimits(sequences=4, tokens=20)), rows, start=7)
    assert [vector[0] for vector in vectors] == [len(row) for row in rows]
    assert [item["index"] for item in items] == list(range(7, 32))
    assert [item["usage"]["prompt_tokens"] for item in items] == [len(row) for row in rows]
    assert max(map(len, encoder.batches)) <= 4
    assert max(len(batch) * max(map(len, batch)) for batch in encoder.batches) <= 20


def test_a_row_that_is_too_long_is_cut_and_says_so() -> None:
    items, vectors = embed(embedder(LengthEncoder(), max_length=3), ["ab", "aaaaa"])
    assert vectors[1][0] == 3
    assert "truncated" not in items[0]
    assert items[1]["truncated"] is True
    assert items[1]["usage"]["total_tokens"] == 3


def test_a_row_that_is_too_long_fails_where_the_spec_says_so() -> None:
    items, vectors = embed(embedder(LengthEncoder(), max_length=3, truncate=False), ["ab", "aaaaa"])
    assert items[1] == {"index": 1, "input": "aaaaa", "ok": False, "error": "the row has 5 tokens, more than 3"}
    assert np.isnan(vectors[1]).all()
    assert not np.isnan(vectors[0]).any()


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ([{"role": "user", "content": "hi"}], "chat messages"),
        ("", "empty"),
        (" \n", "empty"),
        ("a!", "not finite"),
    ],
)
def test_a_row_that_cannot_be_done_does_not_stop_the_others(row: Any, words: str) -> None:
    items, vectors = embed(embedder(LengthEncoder()), ["ab", row, "aaa"])
    assert [item.get("ok", True) for item in items] == [True, False, True]
    assert words in items[1]["error"]
    assert np.isnan(vectors[1]).all()
    assert vectors[2][1] == 3


def test_a_batch_that_does_not_fit_the_memory_is_halved() -> None:
    encoder = LengthEncoder(room=8)
    items, vectors = embed(embedder(encoder), ["aaaa"] * 5 + ["b" * 9])
    assert [vector[1] for vector in vectors[:5]] == [4] * 5
    assert max(map(len, encoder.batches)) == 2
    assert "out of memory with 9 tokens" in items[5]["error"]


def test_an_error_that_is_not_for_want_of_memory_is_raised() -> None:
    encoder = LengthEncoder()

    def broken(texts: Sequence[str], *, max_length: int | None) -> Any:
        raise RuntimeError("a bug")

    encoder.encode = broken  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="a bug"):
        embed(embedder(encoder), ["a"])


def test_vectors_are_cut_first_and_scaled_then() -> None:
    _, vectors = embed(embedder(LengthEncoder(), dimensions=2, normalize=True), ["aab", "b"])
    assert vectors.shape == (2, 2)
    assert vectors[0] == pytest.approx(np.array([3, 2]) / np.sqrt(13))
    assert vectors[1] == pytest.approx([1, 0])
    assert vectors.dtype == np.float32
