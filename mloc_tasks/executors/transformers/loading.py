"""Models in memory: loaded by Transformers, and the last one kept between attempts of the same process."""

from __future__ import annotations

import gc
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from mloc_tasks.errors import ModelError, RetryableExecutionError
from mloc_tasks.executors.transformers.batching import BatchLimits
from mloc_tasks.executors.transformers.placement import Placement
from mloc_tasks.models import ModelFiles
from mloc_tasks.models.adapters import merge_adapters, require_peft
from mloc_tasks.models.limits import context_length_of, end_tokens_of

CPU_LIMITS = BatchLimits(sequences=16, tokens=32_768)
CUDA_SEQUENCES = 128
# Of the free GPU memory after loading, for the key-value cache; the rest is for logits and activations.
CUDA_CACHE_SHARE = 0.5


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A causal language model with its tokenizer, ready to generate.

    Attributes:
        end_tokens: ids that end a completion: those of the model's generation config and the tokenizer's own.
        pad_token: id that fills the left of short prompts; not an end token where the vocabulary has another.
        context_length: tokens of prompt and completion together; None when the model does not say.
        limits: the default size of a batch on its device.
    """

    model: Any
    tokenizer: Any
    device: str
    end_tokens: tuple[int, ...]
    pad_token: int
    context_length: int | None
    limits: BatchLimits


def load(files: ModelFiles, placement: Placement) -> LoadedModel:
    """Load `files`. Raises ModelError when it is no causal language model or an argument or adapter does not fit."""
    if files.adapters:
        require_peft()
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    common = {"revision": files.revision, "trust_remote_code": files.trust_remote_code}
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(files.location, padding_side="left", **common)
        model: Any = AutoModelForCausalLM.from_pretrained(files.location, **common, **placement.arguments)
        if not placement.spread:
            model = model.to(placement.device)
        model = merge_adapters(model, files.adapters) if files.adapters else model
    except torch.OutOfMemoryError as error:
        message = f"the model {files.name} does not fit the free memory of this worker's GPU: {error}"
        raise RetryableExecutionError(message) from error
    except (OSError, ValueError, TypeError, KeyError, ImportError, RuntimeError) as error:
        raise ModelError(f"the model {files.name} cannot be loaded: {error}", hint=_hint(error)) from error
    model.eval()
    end_tokens = end_tokens_of(model, tokenizer)
    pad_token = _pad_token(tokenizer, end_tokens)
    _forget_generation_defaults(model, pad_token)
    return LoadedModel(
        model=model,
        tokenizer=tokenizer,
        device=str(model.device),
        end_tokens=end_tokens,
        pad_token=pad_token,
        context_length=context_length_of(model.config, tokenizer),
        limits=_limits(model),
    )


class ModelCache:
    """Keeps the model that was used last, and lets one user at a time have it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._key = ""
        self._loaded: LoadedModel | None = None

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Holds the cache: one attempt of a threads pool generates, the others wait for it."""
        with self._lock:
            yield

    def get(
        self, files: ModelFiles, placement: Placement, *, loader: Callable[[ModelFiles, Placement], LoadedModel] = load
    ) -> LoadedModel:
        """The loaded model; another one is let go before this one is loaded. Call it within `exclusive()`."""
        model = [files.location, files.revision, files.trust_remote_code, files.adapters]
        identity = [*model, placement.device, placement.arguments]
        key = json.dumps(identity, sort_keys=True, default=repr)
        if self._loaded is None or self._key != key:
            self.clear()
            self._loaded = loader(files, placement)
            self._key = key
        return self._loaded

    def clear(self) -> None:
        """Let go of the model and of the GPU memory it took."""
        if self._loaded is None:
            return
        self._loaded, self._key = None, ""
        gc.collect()  # modules refer to each other in cycles
        import torch

        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _pad_token(tokenizer: Any, end_tokens: tuple[int, ...]) -> int:
    candidates = [tokenizer.pad_token_id, tokenizer.unk_token_id, tokenizer.bos_token_id]
    for each in candidates:
        if each is not None and each not in end_tokens:
            return int(each)
    # Harmless all the same: padding is masked, and where a completion ends is recorded while it is generated.
    return end_tokens[0] if end_tokens else 0


def _forget_generation_defaults(model: Any, pad_token: int) -> None:
    """What a model's files say about sampling must not decide where the spec is silent."""
    from transformers import GenerationConfig

    model.generation_config = GenerationConfig(pad_token_id=pad_token)  # type: ignore[no-untyped-call]


def _limits(model: Any) -> BatchLimits:
    if model.device.type != "cuda":
        return CPU_LIMITS
    import torch

    free, _ = torch.cuda.mem_get_info(model.device)
    tokens = int(free * CUDA_CACHE_SHARE / _cache_bytes_per_token(model))
    return BatchLimits(sequences=CUDA_SEQUENCES, tokens=max(tokens, 1))


def _cache_bytes_per_token(model: Any) -> int:
    """Bytes of keys and values of all layers; an upper bound where a model shares them or slides a window."""
    config = model.config.get_text_config(decoder=True)
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    head_size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(2 * config.num_hidden_layers * heads * head_size * model.dtype.itemsize)


def _hint(error: Exception) -> str:
    if isinstance(error, TypeError):
        return "model.transformers is passed on to from_pretrained; check its keys"
    if isinstance(error, ImportError):
        return "install the package it names on the workers"
    return "inference needs a causal language model with its tokenizer"
