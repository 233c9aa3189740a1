"""The Transformers inference executor: rows in, items out, in windows so that no shard has to fit in memory."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from mloc_tasks.errors import ExecutionError
from mloc_tasks.executors.base import Executor, Item, Rows, Task
from mloc_tasks.executors.generation.decoding import decoding_of
from mloc_tasks.executors.generation.model_files import cache_dir_of
from mloc_tasks.executors.generation.prompts import encoder_for
from mloc_tasks.executors.generation.recording import AnswerRecord
from mloc_tasks.executors.transformers.answers import Answerer
from mloc_tasks.executors.transformers.batching import windows
from mloc_tasks.executors.transformers.loading import ModelCache
from mloc_tasks.executors.transformers.placement import place
from mloc_tasks.executors.transformers.support import unsupported
from mloc_tasks.models import files_of_stage
from mloc_tasks.models.library_messages import library_messages

WINDOW_ROWS = 512
"""Rows that are tokenized, sorted by length and answered before their items are written."""

_MODELS = ModelCache()
"""The process's one model, whichever executor object asks."""


class TransformersExecutor(Executor):
    """Text generation with a causal language model.

    What the spec leaves out: greedy decoding, 256 new tokens, the chat template when the model has one, the
    precision of the model's files, a GPU when there is one (see `decoding_of` and `place`). Sampling with a seed
    gives the same completions whatever the batches and shards, up to rounding: exact in float32 in practice, while in
    bfloat16 two nearly equal tokens can swap when a batch has another shape.
    """

    name: ClassVar[str] = "transformers"
    task_types: ClassVar[tuple[str, ...]] = ("inference",)
    needs_rows: ClassVar[bool] = True
    keeps_model: ClassVar[bool] = True
    resumes_rows: ClassVar[bool] = True
    result_fields: ClassVar[frozenset[str] | None] = AnswerRecord.RESULT_FIELDS

    @classmethod
    def unsupported(cls, document: Mapping[str, Any]) -> str | None:
        return unsupported(document)

    def run(self, task: Task, out_dir: Path) -> dict[str, Any]:
        if reason := unsupported(task["spec"]):
            raise ExecutionError(reason)
        if task.inputs is None:
            raise ExecutionError("inference needs rows", hint="give data, or inference.prompts")
        _require_libraries()
        warn = partial(task.report.log, level="warning")
        with self._answerer(task, warn) as answerer:
            return _answer_all(task, task.inputs, answerer, out_dir)

    @contextmanager
    def _answerer(self, task: Task, warn: partial[None]) -> Iterator[Answerer]:
        """The stage's model, loaded, with what the spec says about prompts and sampling; the model is ours within."""
        import torch

        spec = task.spec
        decoding = decoding_of(spec.inference)
        with _MODELS.exclusive(), library_messages(warn):
            files = files_of_stage(spec, cache_dir=cache_dir_of(task), log=task.report.log)
            loaded = _MODELS.get(files, place(spec, cuda=torch.cuda.is_available()))
            encoder = encoder_for(
                spec.inference, loaded.tokenizer, model=files.name, context_length=loaded.context_length
            )
            limits = loaded.limits
            if spec.inference is not None and spec.inference.batch_size is not None:
                limits = replace(limits, sequences=spec.inference.batch_size * decoding.n)
            yield Answerer(loaded=loaded, encoder=encoder, decoding=decoding, limits=limits)


def _answer_all(task: Task, inputs: Rows[Item], answerer: Answerer, out_dir: Path) -> dict[str, Any]:
    done = 0

    def answered(rows: int) -> None:
        nonlocal done
        done += rows
        task.report.progress(done, len(inputs))

    with AnswerRecord(task, inputs, out_dir) as record:
        for rows in windows(inputs, WINDOW_ROWS):
            record.write(answerer.answer(rows, start=record.next_index, answered=answered))
        return record.finish()


def _require_libraries() -> None:
    missing = [name for name in ("torch", "transformers") if importlib.util.find_spec(name) is None]
    if missing:
        message = f"the Transformers executor needs {' and '.join(missing)}, not installed on this worker"
        raise ExecutionError(message, hint="pip install 'mloc[inference]'")
