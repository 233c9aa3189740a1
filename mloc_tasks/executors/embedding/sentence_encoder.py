"""Vectors from sentence-transformers, which knows every step that such a model consists of."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mloc_tasks.errors import ModelError, RetryableExecutionError
from mloc_tasks.executors.embedding.limits import limits_for

if TYPE_CHECKING:
    from mloc_tasks.executors.embedding.encoder import Vectors
    from mloc_tasks.executors.embedding.model_card import ModelCard
    from mloc_tasks.executors.transformers.placement import Placement
    from mloc_tasks.models import ModelFiles


def is_installed() -> bool:
    """Whether sentence-transformers can be imported here."""
    return importlib.util.find_spec("sentence_transformers") is not None


class SentenceEncoder:
    """A model of sentence-transformers; see `Encoder`."""

    def __init__(self, files: ModelFiles, placement: Placement, card: ModelCard) -> None:
        """Load the model. Raises ModelError when it does not load."""
        import torch

        try:
            from sentence_transformers import SentenceTransformer

            self._model: Any = SentenceTransformer(
                files.location,
                device=placement.device,
                revision=files.revision,
                trust_remote_code=files.trust_remote_code,
                model_kwargs=dict(placement.arguments),
            )
        except torch.OutOfMemoryError as error:
            message = f"the model {files.name} does not fit the free memory of this worker's GPU: {error}"
            raise RetryableExecutionError(message) from error
        except (OSError, ValueError, TypeError, KeyError, ImportError, RuntimeError) as error:
            raise ModelError(f"sentence-transformers cannot load the model {files.name}: {error}") from error
        self.pooling = card.pooling
        self.dimensions = int(self._model.get_embedding_dimension())
        self.max_length = self._model.max_seq_length
        self.limits = limits_for(placement.device)
        self._prefix = card.prefix

    def lengths(self, texts: Sequence[str]) -> list[int]:
        encoded = self._model.tokenizer([self._prefix + text for text in texts], truncation=False, verbose=False)
        return [len(each) for each in encoded["input_ids"]]

    def encode(self, texts: Sequence[str], *, max_length: int | None) -> Vectors:
        self._model.max_seq_length = max_length
        found: Vectors = self._model.encode(
            list(texts), batch_size=len(texts), convert_to_numpy=True, show_progress_bar=False
        ).astype("float32", copy=False)
        return found
