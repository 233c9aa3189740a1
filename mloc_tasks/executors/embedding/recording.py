"""An embedding stage's result: items, vectors in a file or in the items, and what they cost."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mloc_tasks.data.items import RESPONSES, ItemWriter
from mloc_tasks.errors import ExecutionError
from mloc_tasks.executors.base import Item, Rows, Task, write_json
from mloc_tasks.executors.embedding.rows import Embedder
from mloc_tasks.executors.embedding.vectors import FILE, VectorFile
from mloc_tasks.executors.generation.failures import FailureLimit
from mloc_tasks.executors.transformers.batching import windows
from mloc_tasks.models import model_name
from mloc_tasks.spec.model.embedding import Embedding

if TYPE_CHECKING:
    from mloc_tasks.executors.embedding.encoder import Encoder
    from mloc_tasks.spec import StageSpec

WINDOW_ROWS = 2_048
"""Rows that are measured, sorted by length and encoded before their items are written."""
ROWS_WITH_VECTORS = 1_000
"""Up to so many rows the items carry their vectors where the spec does not say."""
RESULT_FIELDS = frozenset(
    {
        *("ok", "model", "dimensions", "pooling", "normalized", "embeddings_file", "usage"),
        *("items", "items_failed", "items_total", "items_truncated", "items_parts"),
    }
)


def embed_all(task: Task, inputs: Rows[Item], encoder: Encoder, out_dir: Path) -> dict[str, Any]:
    """Make the vectors of a task's rows and write its result.

    Raises ExecutionError when the spec asks for more than the model has, or too many rows failed.
    """
    settings = task.spec.embedding or Embedding()
    embedder = _embedder(settings, encoder, model_name(task.spec))
    in_file, in_items = _places(task.spec, len(inputs))
    started = time.perf_counter()
    with ExitStack() as stack:
        writer = stack.enter_context(ItemWriter(out_dir, parts=task.parts))
        file = None
        if in_file:
            file = stack.enter_context(VectorFile(out_dir, rows=len(inputs), dimensions=embedder.dimensions))
        tokens = _write_all(task, inputs, embedder, writer, file=file, in_items=in_items)
    if writer.failed:
        task.report.log(f"{writer.failed} of {len(writer)} rows failed; see the items with ok: false", level="warning")
    latency = round(time.perf_counter() - started, 3)
    result = writer.responses(
        ok=True,
        model=model_name(task.spec),
        usage={
            **{"prompt_tokens": tokens, "completion_tokens": 0, "total_tokens": tokens},
            **{"latency_sec": latency, "num_requests": len(writer)},
        },
        dimensions=embedder.dimensions,
        pooling=encoder.pooling,
        normalized=settings.normalize,
        embeddings_file=FILE if in_file else None,
    )
    write_json(out_dir / RESPONSES, result)
    return result


def _write_all(
    task: Task, inputs: Rows[Item], embedder: Embedder, writer: ItemWriter, *, file: VectorFile | None, in_items: bool
) -> int:
    """Write the items, and the vectors into them, into `file`, or both; returns the tokens that were encoded."""
    limit = FailureLimit.of_task(task)
    tokens, done = 0, 0

    def advance(rows: int) -> None:
        nonlocal done
        done += rows
        task.report.progress(done, len(inputs))

    for rows in windows(inputs, WINDOW_ROWS):
        items, vectors = embedder.embed(rows, start=inputs.start + len(writer), done=advance)
        if file is not None:
            file.write(vectors)
        for item, vector in zip(items, vectors, strict=True):
            if item.get("ok") is not False:
                tokens += item["usage"]["prompt_tokens"]
                if in_items:
                    item["embedding"] = vector.tolist()
            writer.write(item)
        limit.check(items)
    return tokens


def _embedder(settings: Embedding, encoder: Encoder, model: str) -> Embedder:
    for name, asked, most in (
        ("max_length", settings.max_length, encoder.max_length),
        ("dimensions", settings.dimensions, encoder.dimensions),
    ):
        if asked is not None and most is not None and asked > most:
            raise ExecutionError(f"embedding.{name} is {asked}, but the model {model} has {most} at most")
    limits = encoder.limits
    if settings.batch_size is not None:
        limits = type(limits)(sequences=settings.batch_size, tokens=limits.tokens)
    return Embedder(
        encoder=encoder,
        max_length=settings.max_length or encoder.max_length,
        truncate=settings.truncate,
        dimensions=settings.dimensions or encoder.dimensions,
        normalize=settings.normalize,
        limits=limits,
    )


def _places(spec: StageSpec, rows: int) -> tuple[bool, bool]:
    """Whether vectors stand in a file, and whether they stand in the items.

    Shards have them in the items: these are what a gather puts together.
    """
    if spec.parallel.enabled:
        return False, True
    output = None if spec.embedding is None else spec.embedding.output
    if output is None:
        return True, rows <= ROWS_WITH_VECTORS
    return output in ("npy", "both"), output in ("items", "both")
