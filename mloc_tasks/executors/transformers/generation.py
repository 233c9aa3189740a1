"""One batch through `generate`."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mloc_tasks.executors.generation.completions import Completion
from mloc_tasks.executors.generation.decoding import Decoding
from mloc_tasks.executors.transformers.loading import LoadedModel
from mloc_tasks.executors.transformers.stopping import Ending, StopWatcher, cut_at_stop
from mloc_tasks.executors.transformers.token_choice import TokenChooser, TokenLogprob

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Request:
    """One completion to make: the prompt's token ids, the row's random stream, and how long it may get."""

    prompt: Sequence[int]
    draws: random.Random
    max_tokens: int


def complete(loaded: LoadedModel, requests: Sequence[Request], decoding: Decoding) -> list[Completion]:
    """The completions of `requests`, in their order, generated side by side.

    Raises what torch raises, out-of-memory included: `is_out_of_memory` tells.
    """
    import torch
    from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList

    ids, mask = _left_padded([each.prompt for each in requests], pad=loaded.pad_token)
    width = ids.shape[1]
    end_tokens = () if decoding.ignore_eos else loaded.end_tokens
    watcher = StopWatcher(
        lambda tail: _text(loaded, tail),
        prompt_width=width,
        max_tokens=[each.max_tokens for each in requests],
        end_tokens=end_tokens,
        stop=decoding.stop,
        min_tokens=decoding.min_tokens,
    )
    chooser = TokenChooser(
        decoding=decoding,
        prompts=[each.prompt for each in requests],
        draws=[each.draws for each in requests],
        prompt_width=width,
        end_tokens=loaded.end_tokens,
    )
    config = GenerationConfig(  # type: ignore[no-untyped-call]
        do_sample=False,  # the chooser draws
        max_new_tokens=max(each.max_tokens for each in requests),
        pad_token_id=loaded.pad_token,
        use_cache=True,
    )
    with torch.inference_mode():
        output = loaded.model.generate(
            input_ids=ids.to(loaded.device),
            attention_mask=mask.to(loaded.device),
            generation_config=config,
            logits_processor=LogitsProcessorList([chooser]),
            stopping_criteria=StoppingCriteriaList([watcher]),
        )
    rows = zip(output[:, width:].tolist(), watcher.endings, chooser.logprobs, strict=True)
    return [_completion(loaded, decoding, *row) for row in rows]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a smaller batch may succeed where this error came up."""
    import torch

    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def _completion(
    loaded: LoadedModel, decoding: Decoding, generated: list[int], ending: Ending | None, logprobs: list[TokenLogprob]
) -> Completion:
    if ending is None:  # `generate` stopped for its own limit, which is the largest of the rows'
        ending = Ending(len(generated), "length")
    text = _text(loaded, generated[: ending.tokens])
    if ending.by_stop_string and (cut := cut_at_stop(text, decoding.stop)) is not None:
        text = cut
    return Completion(
        text=text,
        tokens=ending.tokens,
        finish_reason=ending.reason,
        logprobs=None if decoding.logprobs is None else list(_described(loaded, logprobs[: ending.tokens])),
    )


def _described(loaded: LoadedModel, logprobs: Sequence[TokenLogprob]) -> Iterator[dict[str, Any]]:
    token_of = loaded.tokenizer.decode
    for each in logprobs:
        top = [{"token": token_of([token]), "logprob": value} for token, value in each.top]
        yield {"token": token_of([each.token]), "logprob": each.logprob, "top": top}


def _text(loaded: LoadedModel, ids: list[int]) -> str:
    return str(loaded.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))


def _left_padded(prompts: Sequence[Sequence[int]], *, pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask, both (rows, longest prompt): the prompts end where generation begins."""
    import torch

    width = max(len(each) for each in prompts)
    ids = torch.full((len(prompts), width), pad, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.tensor(prompt)
        mask[row, width - len(prompt) :] = 1
    return ids, mask
