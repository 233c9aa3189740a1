"""Vectors from a plain Transformers model: the last layer's token states, pooled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mloc_tasks.errors import ModelError, RetryableExecutionError
from mloc_tasks.executors.embedding.limits import limits_for

if TYPE_CHECKING:
    from mloc_tasks.executors.embedding.encoder import Vectors
    from mloc_tasks.executors.embedding.model_card import ModelCard
    from mloc_tasks.executors.transformers.placement import Placement
    from mloc_tasks.models import ModelFiles

DEFAULT_POOLING = "mean"
POOLINGS = ("mean", "cls", "last")
_UNLIMITED_TOKENS = 10**9  # some tokenizers say "no limit" by a number like 10**30


class TransformersEncoder:
    """A Transformers model with its tokenizer; see `Encoder`.

    Args:
        pooling: mean (of all tokens), cls (the first) or last; "" takes what the card says, else mean.
    """

    def __init__(self, files: ModelFiles, placement: Placement, card: ModelCard, *, pooling: str = "") -> None:
        """Load the model. Raises ModelError when it does not load, or needs sentence-transformers."""
        self.pooling = pooling or card.pooling or DEFAULT_POOLING
        if self.pooling not in POOLINGS or card.other_modules:
            steps = ", ".join([*([self.pooling] if self.pooling not in POOLINGS else []), *card.other_modules])
            raise ModelError(
                f"the vectors of {files.name} are made by steps that only sentence-transformers knows: {steps}",
                hint="pip install sentence-transformers on the workers, and leave embedding.pooling out",
            )
        self._normalized = card.normalized
        self._prefix = card.prefix
        self._model, self._tokenizer = _load(files, placement)
        self.dimensions = int(self._model.config.get_text_config().hidden_size)
        self.max_length = _max_length(self._model.config, self._tokenizer, card)
        self.limits = limits_for(str(self._model.device))

    def lengths(self, texts: Sequence[str]) -> list[int]:
        encoded = self._tokenizer(self._prefixed(texts), truncation=False, verbose=False)
        return [len(each) for each in encoded["input_ids"]]

    def encode(self, texts: Sequence[str], *, max_length: int | None) -> Vectors:
        import torch

        encoded = self._tokenizer(
            self._prefixed(texts),
            padding=True,
            truncation=max_length is not None,
            max_length=max_length,
            return_tensors="pt",
        ).to(self._model.device)
        with torch.inference_mode():
            states = self._model(**encoded).last_hidden_state.float()
            vectors = pooled(states, encoded["attention_mask"], self.pooling)
            if self._normalized:
                vectors = torch.nn.functional.normalize(vectors, dim=1)
        found: Vectors = vectors.cpu().numpy()
        return found

    def _prefixed(self, texts: Sequence[str]) -> list[str]:
        return [self._prefix + text for text in texts]


def pooled(states: Any, mask: Any, pooling: str) -> Any:
    """One vector for each row.

    Args:
        states: token states, shape [rows, tokens, dimensions], padded on the right.
        mask: 1 for a token and 0 for padding, shape [rows, tokens].
        pooling: mean, cls or last.

    Returns shape [rows, dimensions].
    """
    import torch

    if pooling == "cls":
        return states[:, 0]
    if pooling == "last":
        return states[torch.arange(len(states), device=states.device), mask.sum(dim=1) - 1]
    weights = mask.unsqueeze(-1).to(states.dtype)
    return (states * weights).sum(dim=1) / weights.sum(dim=1)


def _load(files: ModelFiles, placement: Placement) -> tuple[Any, Any]:
    import torch
    from transformers import AutoModel, AutoTokenizer

    common = {"revision": files.revision, "trust_remote_code": files.trust_remote_code}
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(files.location, padding_side="right", **common)
        model: Any = AutoModel.from_pretrained(files.location, **common, **placement.arguments)
        if model.config.is_encoder_decoder:
            model = model.get_encoder()
        if not placement.spread:
            model = model.to(placement.device)
    except torch.OutOfMemoryError as error:
        message = f"the model {files.name} does not fit the free memory of this worker's GPU: {error}"
        raise RetryableExecutionError(message) from error
    except (OSError, ValueError, TypeError, KeyError, ImportError, RuntimeError) as error:
        hint = (
            "embedding needs a Transformers model with its tokenizer; model.transformers is passed to from_pretrained"
        )
        raise ModelError(f"the model {files.name} cannot be loaded: {error}", hint=hint) from error
    if tokenizer.pad_token is None:
        # Padding is masked, so any token will do.
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token or tokenizer.convert_ids_to_tokens(0)
    return model.eval(), tokenizer


def _max_length(config: Any, tokenizer: Any, card: ModelCard) -> int | None:
    positions = getattr(config.get_text_config(), "max_position_embeddings", None)
    declared = (card.max_length, positions, tokenizer.model_max_length)
    return min((int(each) for each in declared if each is not None and 0 < each < _UNLIMITED_TOKENS), default=None)
