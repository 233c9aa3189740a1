"""What turns texts into vectors: one interface to the libraries that do it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mloc_tasks.executors.transformers.batching import BatchLimits

    Vectors = NDArray[np.float32]


class Encoder(Protocol):
    """A loaded model.

    Attributes:
        dimensions: numbers in each vector.
        pooling: how token states become one vector, as results call it.
        max_length: tokens of a text that the model takes, special tokens counted; None when it does not say.
        limits: the default size of a batch on its device.
    """

    dimensions: int
    pooling: str
    max_length: int | None
    limits: BatchLimits

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, special tokens counted, nothing cut."""
        ...

    def encode(self, texts: Sequence[str], *, max_length: int | None) -> Vectors:
        """One float32 vector for each text, shape [texts, dimensions]; what is longer than `max_length` is cut.

        Raises what the library raises, out-of-memory included.
        """
        ...
