"""How a stage of task type `embedding` makes vectors."""

from typing import Literal

from pydantic import Field

from mloc_tasks.spec.model.base import PositiveCount, SpecModel
from mloc_tasks.spec.model.inference import FailedItems


class Embedding(SpecModel):
    """How a stage of task type `embedding` makes vectors."""

    pooling: Literal["mean", "cls", "last"] | None = Field(
        None, description="Which token states make the vector; by default what the model's files say, else `mean`."
    )
    normalize: bool = Field(True, description="Scale vectors to length 1; false leaves them as the model makes them.")
    dimensions: PositiveCount | None = Field(
        None, description="Keep the first so many numbers of a vector (before scaling), for models trained so."
    )
    batch_size: PositiveCount | None = Field(None, description="Inputs in one batch.")
    max_length: PositiveCount | None = Field(
        None, description="Tokens of an input at most; by default as many as the model takes."
    )
    truncate: bool = Field(
        True, description="Cut what is longer than `max_length`; false makes such a row a failed item."
    )
    output: Literal["npy", "items", "both"] | None = Field(
        None,
        description="Where vectors stand: in `embeddings.npy`, in the items, or both. By default in the file, and in "
        "the items too while there are at most 1,000; with `parallel` in the items only.",
    )
    max_failed_items: FailedItems = Field(
        0, description="Rows, or share of rows, that may fail; 0 reports failures without failing the stage."
    )
