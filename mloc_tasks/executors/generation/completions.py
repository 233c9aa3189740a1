"""From completions to the items of a result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mloc_tasks.executors.base import Item

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, kw_only=True)
class Completion:
    """What came of a prompt; `tokens` counts the end-of-sequence token and those of a stop string that was cut.

    `logprobs` has one entry per token: `token`, its `logprob`, and under `top` the likeliest alternatives.
    """

    text: str
    tokens: int
    finish_reason: FinishReason
    logprobs: list[dict[str, Any]] | None = None


def completed_item(index: int, row: Item, completions: Sequence[Completion], *, prompt_tokens: int) -> dict[str, Any]:
    """The item of a row; `index` is its position in the stage's whole input."""
    first = completions[0]
    completion_tokens = sum(each.tokens for each in completions)
    item: dict[str, Any] = {"index": index, "input": row, "output": first.text, "finish_reason": first.finish_reason}
    if first.logprobs is not None:
        item["logprobs"] = first.logprobs
    if len(completions) > 1:
        item["outputs"] = [_output(each) for each in completions]
    item["usage"] = {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }
    return item


def failed_item(index: int, row: Item, error: str) -> dict[str, Any]:
    """The item of a row that could not be done."""
    return {"index": index, "input": row, "ok": False, "error": error}


def _output(completion: Completion) -> dict[str, Any]:
    output: dict[str, Any] = {"output": completion.text, "finish_reason": completion.finish_reason}
    return output if completion.logprobs is None else {**output, "logprobs": completion.logprobs}
