"""How tokens are chosen and when a completion ends: the stage's `inference` block with every default filled in."""

from __future__ import annotations

import random
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mloc_tasks.errors import ExecutionError

if TYPE_CHECKING:
    from mloc_tasks.spec.model.inference import Inference

DEFAULT_MAX_TOKENS = 256


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """Settings of one stage. What the spec leaves out has the value here, never one out of the model's own files.

    Attributes:
        max_tokens: new tokens at most, the end-of-sequence token counted.
        min_tokens: new tokens before which neither end-of-sequence nor a stop string ends the completion.
        temperature: 0 is greedy.
        top_p, top_k, min_p: 1, 0 and 0 switch them off. Applied in the order top_k, top_p, min_p.
        n: completions per row.
        seed: with the row's index it decides every draw.
        stop: the output ends before the first of these.
        logprobs: None, or how many alternatives to report beside each chosen token.
    """

    max_tokens: int = DEFAULT_MAX_TOKENS
    min_tokens: int = 0
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    n: int = 1
    seed: int = 0
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logprobs: int | None = None

    def random(self, index: int, sample: int) -> random.Random:
        """The draws of one completion.

        They depend on the seed, the row's position in the stage's whole input and the sample's number only: not on
        the batch, the shard or the device.
        """
        return random.Random(f"{self.seed}/{index}/{sample}")


def decoding_of(inference: Inference | None) -> Decoding:
    """Settings for a stage's `inference` block.

    A silent `temperature` means greedy, so that the same spec gives the same answers; when the block asks for
    something that only sampling has (`top_p`, `top_k`, `min_p`, `n` above 1) it means 1. A silent `seed` is drawn anew.

    Raises ExecutionError for `n` above 1 with `temperature: 0`, where all completions would be the same.
    """
    if inference is None:
        return Decoding()
    samples = any(value is not None for value in (inference.top_p, inference.top_k, inference.min_p)) or inference.n > 1
    temperature = inference.temperature if inference.temperature is not None else float(samples)
    if inference.n > 1 and temperature == 0:
        raise ExecutionError(
            f"inference.n is {inference.n} but temperature 0 is greedy: all completions would be the same",
            hint="set a temperature above 0, or n: 1",
        )
    return Decoding(
        max_tokens=inference.max_tokens or DEFAULT_MAX_TOKENS,
        min_tokens=inference.min_tokens or 0,
        temperature=temperature,
        top_p=1.0 if inference.top_p is None else inference.top_p,
        top_k=max(inference.top_k or 0, 0),
        min_p=inference.min_p or 0.0,
        n=inference.n,
        seed=secrets.randbits(32) if inference.seed is None else inference.seed,
        stop=inference.stop,
        ignore_eos=inference.ignore_eos,
        repetition_penalty=1.0 if inference.repetition_penalty is None else inference.repetition_penalty,
        presence_penalty=inference.presence_penalty or 0.0,
        frequency_penalty=inference.frequency_penalty or 0.0,
        logprobs=_alternatives(inference.logprobs),
    )


def _alternatives(logprobs: int | bool | None) -> int | None:
    if logprobs is None or logprobs is False:
        return None
    return 0 if logprobs is True else logprobs
