"""The embedding executor for vLLM: `model.vllm` asks for it."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from mloc_tasks.errors import ExecutionError, MlocError
from mloc_tasks.executors.base import Executor, Task
from mloc_tasks.executors.embedding.recording import RESULT_FIELDS, WINDOW_ROWS, embed_all
from mloc_tasks.executors.embedding.support import unsupported
from mloc_tasks.executors.transformers.batching import BatchLimits
from mloc_tasks.executors.vllm.engine import died
from mloc_tasks.models.library_messages import library_messages

if TYPE_CHECKING:
    from mloc_tasks.executors.embedding.encoder import Vectors

TYPE_OF = {"mean": "MEAN", "cls": "CLS", "last": "LAST"}
"""Pooling in the spec -> vLLM's name for it."""
BATCH_TOKENS = 2**40
"""vLLM makes its own batches."""


class VllmEmbeddingExecutor(Executor):
    """One vector for each row, by vLLM's pooling runner.

    Without `embedding.pooling` vLLM takes what the model's files say, else the last token.

    Attributes:
        broken: True once the engine has died or failed to load; the process is to be replaced.
    """

    name: ClassVar[str] = "vllm-embedding"
    task_types: ClassVar[tuple[str, ...]] = ("embedding",)
    family: ClassVar[str] = "vllm"
    needs_rows: ClassVar[bool] = True
    keeps_model: ClassVar[bool] = True
    result_fields: ClassVar[frozenset[str] | None] = RESULT_FIELDS

    def __init__(self) -> None:
        self.broken = False
        self._lock = threading.Lock()
        self._encoder: VllmEncoder | None = None

    @classmethod
    def unsupported(cls, document: Mapping[str, Any]) -> str | None:
        return unsupported(document)

    @classmethod
    def host_key(cls, document: Mapping[str, Any]) -> str:
        # The pooling is part of the engine.
        pooling = (document.get("embedding") or {}).get("pooling")
        return f"{super().host_key(document)} {pooling}"

    def run(self, task: Task, out_dir: Path) -> dict[str, Any]:
        if reason := unsupported(task["spec"]):
            raise ExecutionError(reason)
        if task.inputs is None:
            raise ExecutionError("embedding needs rows", hint="give the stage `data`")
        with self._lock, library_messages(partial(task.report.log, level="warning")):
            encoder = self._loaded(task)
            from vllm.v1.engine.exceptions import EngineDeadError

            try:
                return embed_all(task, task.inputs, encoder, out_dir)
            except EngineDeadError as error:
                self.broken = True
                raise died(error) from error

    def close(self) -> None:
        if self._encoder is not None:
            self._encoder.close()
            self._encoder = None

    def _loaded(self, task: Task) -> VllmEncoder:
        if self._encoder is None:
            try:
                self._encoder = VllmEncoder(task)
            except MlocError:
                self.broken = True  # what the engine's processes left behind goes with this one
                raise
        return self._encoder


class VllmEncoder:
    """An engine with vLLM's pooling runner; see `Encoder`."""

    def __init__(self, task: Task) -> None:
        """Load it. Raises ExecutionError without vLLM or for an unknown argument, ModelError when it does not load."""
        from mloc_tasks.executors.vllm.loading import load_errors, prepare

        loading = prepare(task)
        from vllm import LLM
        from vllm.config import PoolerConfig

        asked = None if task.spec.embedding is None else task.spec.embedding.pooling
        # Scaling is ours, so that it is the same with every library, and after `dimensions`.
        pooler = PoolerConfig(seq_pooling_type=TYPE_OF.get(asked or ""), use_activation=False)
        arguments = {"runner": "pooling", "convert": "embed", **loading.arguments, "pooler_config": pooler}
        with load_errors(loading):
            self._llm: Any = LLM(**arguments)
        config = self._llm.model_config
        self._tokenizer: Any = self._llm.get_tokenizer()
        self.dimensions = int(config.embedding_size)
        self.pooling = str(config.pooler_config.seq_pooling_type).lower()
        self.max_length: int | None = int(config.max_model_len)
        self.limits = BatchLimits(sequences=WINDOW_ROWS, tokens=BATCH_TOKENS)

    def lengths(self, texts: Sequence[str]) -> list[int]:
        return [len(each) for each in self._tokenizer(list(texts), truncation=False, verbose=False)["input_ids"]]

    def encode(self, texts: Sequence[str], *, max_length: int | None) -> Vectors:
        import numpy as np

        encoded = self._tokenizer(list(texts), truncation=max_length is not None, max_length=max_length)
        prompts = [{"prompt_token_ids": each} for each in encoded["input_ids"]]
        outputs = self._llm.embed(prompts, use_tqdm=False)
        return np.asarray([output.outputs.embedding for output in outputs], dtype=np.float32)

    def close(self) -> None:
        """End the engine's process."""
        self._llm.llm_engine.engine_core.shutdown()
