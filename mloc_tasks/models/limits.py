"""What a model says about where its texts end: its end tokens, and how many tokens it can look at."""

from __future__ import annotations

from typing import Any

# Some tokenizers say "no limit" by a number like 10**30.
_UNLIMITED_TOKENS = 10**9


def end_tokens_of(model: Any, tokenizer: Any) -> tuple[int, ...]:
    """Ids that end a completion: those of the model's generation config and the tokenizer's own."""
    declared = model.generation_config.eos_token_id
    ids = {tokenizer.eos_token_id, *(declared if isinstance(declared, list) else [declared])}
    return tuple(sorted(each for each in ids if each is not None))


def context_length_of(config: Any, tokenizer: Any) -> int | None:
    """Tokens of prompt and completion together; None when the model does not say."""
    declared = (
        getattr(config.get_text_config(decoder=True), "max_position_embeddings", None),
        tokenizer.model_max_length,
    )
    known = [int(each) for each in declared if each is not None and 0 < each < _UNLIMITED_TOKENS]
    return min(known, default=None)
