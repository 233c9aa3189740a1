"""A batch that memory cannot hold is halved until it fits; generation itself is replaced by one that says when."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from mloc_tasks.executors.generation.completions import Completion
from mloc_tasks.executors.generation.decoding import Decoding
from mloc_tasks.executors.generation.prompts import PromptEncoder
from mloc_tasks.executors.transformers import answers
from mloc_tasks.executors.transformers.answers import Answerer
from mloc_tasks.executors.transformers.batching import BatchLimits
from mloc_tasks.executors.transformers.generation import Request
from mloc_tasks.executors.transformers.loading import LoadedModel

pytest.importorskip("torch")


class Words:
    """A tokenizer with one token per word."""

    def __call__(self, text: str) -> dict[str, list[int]]:
        return {"input_ids": list(range(len(text.split())))}


def answerer() -> Answerer:
    encoder = PromptEncoder(tokenizer=Words(), chat=False, system_prompt=None, context_length=None)
    loaded = cast(LoadedModel, SimpleNamespace(device="cpu", context_length=None))
    limits = BatchLimits(sequences=8, tokens=10_000)
    return Answerer(loaded=loaded, encoder=encoder, decoding=Decoding(max_tokens=4), limits=limits)


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Generation with memory for two prompts of up to nine tokens; gives the sizes of the batches that were tried."""
    tried: list[int] = []

    def complete(loaded: object, requests: Sequence[Request], decoding: object) -> list[Completion]:
        tried.append(len(requests))
        if len(requests) > 2 or max(len(each.prompt) for each in requests) > 9:
            raise MemoryError
        return [Completion(text=str(len(each.prompt)), tokens=1, finish_reason="stop") for each in requests]

    monkeypatch.setattr(answers, "complete", complete)
    return tried


def test_batch_is_halved_until_it_fits_and_order_is_kept(batches: list[int]) -> None:
    rows = ["a", "a b c", "a b", "a b c d", "a b c d e"]
    items = answerer().answer(rows, start=3, answered=lambda done: None)
    assert [(item["index"], item["output"]) for item in items] == [(3, "1"), (4, "3"), (5, "2"), (6, "4"), (7, "5")]
    assert batches == [5, 2, 3, 1, 2]


def test_row_that_does_not_fit_alone_fails_alone(batches: list[int]) -> None:
    done: list[int] = []
    items: list[dict[str, Any]] = answerer().answer(["a", "a " * 10], start=0, answered=done.append)
    assert items[0]["output"] == "1"
    assert items[1]["ok"] is False
    assert "out of memory on cpu with 10 prompt tokens" in items[1]["error"]
    assert sum(done) == 2


def test_other_errors_are_not_taken_for_lack_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def complete(*_: object) -> list[Completion]:
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(answers, "complete", complete)
    with pytest.raises(RuntimeError, match="shapes"):
        answerer().answer(["a", "b"], start=0, answered=lambda done: None)
