"""What a stage says about sampling, in vLLM's words."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mloc_tasks.errors import ExecutionError
from mloc_tasks.executors.generation.decoding import Decoding, decoding_of

if TYPE_CHECKING:
    from vllm import SamplingParams

    from mloc_tasks.spec.model.inference import Inference

_SEED_BITS = 48  # leaves room for the n consecutive seeds that vLLM gives a row's samples


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """Makes each row's sampling parameters.

    Attributes:
        decoding: the stage's settings, every default filled in.
        seed: None draws anew each time, which is also faster: a seed gives each row a random stream of its own.
        structure: keyword arguments of `StructuredOutputsParams`, or None.
    """

    decoding: Decoding
    seed: int | None
    structure: dict[str, Any] | None
    _common: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_common", _common(self.decoding, self.structure))

    def parameters(self, index: int, *, room: int) -> SamplingParams:
        """For the row at `index` of the stage's whole input, whose completions may have up to `room` tokens."""
        from vllm import SamplingParams

        max_tokens = min(self.decoding.max_tokens, room)
        return SamplingParams(
            **self._common,
            max_tokens=max_tokens,
            min_tokens=min(self.decoding.min_tokens, max_tokens),
            seed=None if self.seed is None else row_seed(self.seed, index),
            skip_clone=True,  # made for one request
        )


def sampler_of(inference: Inference | None) -> Sampler:
    """The sampler for a stage's `inference` block. Raises ExecutionError for values that vLLM does not take."""
    from vllm.exceptions import VLLMValidationError

    try:
        sampler = Sampler(
            decoding=decoding_of(inference),
            seed=None if inference is None else inference.seed,
            structure=None if inference is None else _structure(inference),
        )
        sampler.parameters(0, room=1)
    except (VLLMValidationError, ValueError) as error:
        raise ExecutionError(f"vLLM refuses the stage's inference block: {error}") from error
    return sampler


def row_seed(seed: int, index: int) -> int:
    """A seed that belongs to the row, wherever the stage was cut into shards."""
    digest = hashlib.sha256(f"{seed}/{index}".encode()).digest()
    return int.from_bytes(digest[: _SEED_BITS // 8])


def _common(decoding: Decoding, structure: dict[str, Any] | None) -> dict[str, Any]:
    from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

    return {
        "n": decoding.n,
        "temperature": decoding.temperature,
        "top_p": decoding.top_p,
        "top_k": decoding.top_k,
        "min_p": decoding.min_p,
        "stop": list(decoding.stop),
        "ignore_eos": decoding.ignore_eos,
        "repetition_penalty": decoding.repetition_penalty,
        "presence_penalty": decoding.presence_penalty,
        "frequency_penalty": decoding.frequency_penalty,
        "logprobs": decoding.logprobs,
        "structured_outputs": None if structure is None else StructuredOutputsParams(**structure),
        "output_kind": RequestOutputKind.FINAL_ONLY,
    }


def _structure(inference: Inference) -> dict[str, Any] | None:
    if inference.json_schema is not None:
        return {"json": inference.json_schema}
    if inference.regex is not None:
        return {"regex": inference.regex}
    if inference.choice is not None:
        return {"choice": list(inference.choice)}
    return None
