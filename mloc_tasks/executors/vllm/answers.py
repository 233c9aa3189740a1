"""From vLLM's outputs to items."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mloc_tasks.executors.base import Item
from mloc_tasks.executors.generation.completions import Completion, completed_item, failed_item

if TYPE_CHECKING:
    from vllm import SamplingParams
    from vllm.outputs import CompletionOutput, RequestOutput


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """A row ready for the engine; `index` is its position in the stage's whole input."""

    index: int
    row: Item
    ids: list[int]
    sampling: SamplingParams


def item_of(prompt: Prompt, output: RequestOutput) -> dict[str, Any]:
    """The item of a finished request; one that the engine gave up on is a failed item."""
    for each in output.outputs:
        if each.finish_reason not in ("stop", "length"):
            error = getattr(output, "error", None)
            reason = f"{each.finish_reason}" if error is None else f"{error.code}: {error.message}"
            return failed_item(prompt.index, prompt.row, f"the engine gave the request up ({reason})")
    completions = [_completion(each, prompt.sampling.logprobs) for each in output.outputs]
    return completed_item(prompt.index, prompt.row, completions, prompt_tokens=len(prompt.ids))


def _completion(output: CompletionOutput, alternatives: int | None) -> Completion:
    logprobs = None
    if alternatives is not None and output.logprobs is not None:
        logprobs = _described(output.token_ids, output.logprobs, alternatives)
    return Completion(
        text=output.text,
        tokens=len(output.token_ids),
        finish_reason="stop" if output.finish_reason == "stop" else "length",
        logprobs=logprobs,
    )


def _described(tokens: Sequence[int], positions: Any, alternatives: int) -> list[dict[str, Any]]:
    """For each token its log-probability, and under `top` those of the likeliest, the likeliest first."""
    described = []
    for token, position in zip(tokens, positions, strict=False):
        likeliest = sorted(position.values(), key=lambda each: each.rank)[:alternatives]
        top = [{"token": each.decoded_token, "logprob": each.logprob} for each in likeliest]
        chosen = position[token]
        described.append({"token": chosen.decoded_token, "logprob": chosen.logprob, "top": top})
    return described
