"""The embedding executor for sentence-transformers and plain Transformers models."""

from __future__ import annotations

import importlib.util
import json
import threading
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from mloc_tasks.errors import ExecutionError, ModelError
from mloc_tasks.executors.base import Executor, Task
from mloc_tasks.executors.embedding.model_card import read_card
from mloc_tasks.executors.embedding.recording import RESULT_FIELDS, embed_all
from mloc_tasks.executors.embedding.sentence_encoder import SentenceEncoder, is_installed
from mloc_tasks.executors.embedding.support import unsupported
from mloc_tasks.executors.embedding.transformers_encoder import TransformersEncoder
from mloc_tasks.executors.generation.model_files import cache_dir_of
from mloc_tasks.executors.transformers.placement import Placement, place
from mloc_tasks.models import ModelFiles, files_of_stage
from mloc_tasks.models.library_messages import library_messages

if TYPE_CHECKING:
    from mloc_tasks.executors.embedding.encoder import Encoder
    from mloc_tasks.spec import StageSpec


class EmbeddingExecutor(Executor):
    """One vector for each row.

    A model that is made for sentence-transformers is used through it where it is installed and the spec neither names
    a pooling nor has a `model.transformers` block; all others are Transformers models whose last token states are
    pooled. Both give the same vectors, up to rounding, for models that consist of a transformer, a pooling and a
    scaling.
    """

    name: ClassVar[str] = "embedding"
    needs_rows: ClassVar[bool] = True
    keeps_model: ClassVar[bool] = True
    result_fields: ClassVar[frozenset[str] | None] = RESULT_FIELDS

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._key = ""
        self._encoder: Encoder | None = None

    @classmethod
    def unsupported(cls, document: Mapping[str, Any]) -> str | None:
        return unsupported(document)

    def run(self, task: Task, out_dir: Path) -> dict[str, Any]:
        if reason := unsupported(task["spec"]):
            raise ExecutionError(reason)
        if task.inputs is None:
            raise ExecutionError("embedding needs rows", hint="give the stage `data`")
        _require_libraries()
        with self._lock, library_messages(partial(task.report.log, level="warning")):
            return embed_all(task, task.inputs, self._loaded(task), out_dir)

    def close(self) -> None:
        self._encoder, self._key = None, ""

    def _loaded(self, task: Task) -> Encoder:
        """The stage's model; another one is let go before it is loaded."""
        import torch

        files = files_of_stage(task.spec, cache_dir=cache_dir_of(task), log=task.report.log)
        if files.adapters:
            raise ModelError(
                "embedding takes no adapters, and checkpoint.load is one", hint="merge it into its model first"
            )
        placement = _placement(task.spec, cuda=torch.cuda.is_available())
        asked = None if task.spec.embedding is None else task.spec.embedding.pooling
        whole = task.spec.model is not None and task.spec.model.transformers is not None
        identity = [files.location, files.revision, placement.device, placement.arguments, asked, whole]
        key = json.dumps(identity, sort_keys=True, default=repr)
        if self._encoder is None or key != self._key:
            self.close()
            self._encoder = _load(files, placement, pooling=asked, plain=whole)
            self._key = key
        return self._encoder


def _load(files: ModelFiles, placement: Placement, *, pooling: str | None, plain: bool) -> Encoder:
    card = read_card(files)
    if card.sentence_model and is_installed() and pooling is None and not plain:
        return SentenceEncoder(files, placement, card)
    return TransformersEncoder(files, placement, card, pooling=pooling or "")


def _placement(spec: StageSpec, *, cuda: bool) -> Placement:
    """Where the model runs. On a CPU in float32 unless the spec says otherwise: whole texts at once take a multiple of
    the time in bfloat16 on CPUs without instructions for it, unlike generation, which waits for memory."""
    placement = place(spec, cuda=cuda)
    if placement.device == "cpu" and placement.arguments["dtype"] == "auto":
        return replace(placement, arguments={**placement.arguments, "dtype": "float32"})
    return placement


def _require_libraries() -> None:
    missing = [name for name in ("torch", "transformers") if importlib.util.find_spec(name) is None]
    if missing:
        message = f"the embedding executor needs {' and '.join(missing)}, not installed on this worker"
        raise ExecutionError(message, hint="pip install 'mloc[inference]'")
