"""The vLLM inference executor: one engine for all attempts of its process, which share its batches."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from mloc_tasks.errors import ExecutionError, HostCrashedError, MlocError
from mloc_tasks.executors.base import Executor, Item, Rows, Task
from mloc_tasks.executors.generation.completions import failed_item
from mloc_tasks.executors.generation.decoding import decoding_of
from mloc_tasks.executors.generation.prompts import PromptEncoder, RowError, encoder_for
from mloc_tasks.executors.generation.recording import AnswerRecord
from mloc_tasks.executors.vllm.adapters import adapter_of
from mloc_tasks.executors.vllm.answers import Prompt
from mloc_tasks.executors.vllm.loading import LoadedModel, load, prepare
from mloc_tasks.executors.vllm.plan import engine_key
from mloc_tasks.executors.vllm.sampling import Sampler, sampler_of
from mloc_tasks.executors.vllm.support import unsupported
from mloc_tasks.executors.vllm.window import Ready
from mloc_tasks.models.library_messages import library_messages


class VllmExecutor(Executor):
    """Text generation with vLLM.

    What the spec leaves out is as with the Transformers executor: greedy decoding, 256 new tokens, the chat template
    when the model has one. Sampling with a seed gives a row the same random numbers in whatever shard it is; rounding
    depends on the batch, so two nearly equal tokens can still swap.

    Attributes:
        broken: True once the engine has died or failed to load; the process is to be replaced.
    """

    name: ClassVar[str] = "vllm"
    task_types: ClassVar[tuple[str, ...]] = ("inference",)
    family: ClassVar[str] = "vllm"
    concurrent: ClassVar[bool] = True
    rows_at_once: int | None = 0
    needs_rows: ClassVar[bool] = True
    keeps_model: ClassVar[bool] = True
    resumes_rows: ClassVar[bool] = True
    result_fields: ClassVar[frozenset[str] | None] = AnswerRecord.RESULT_FIELDS | {"adapter"}

    def __init__(self) -> None:
        self.broken = False
        self._lock = threading.Lock()
        self._loaded: LoadedModel | None = None
        self._key = ""

    @classmethod
    def unsupported(cls, document: Mapping[str, Any]) -> str | None:
        return unsupported(document)

    @classmethod
    def host_key(cls, document: Mapping[str, Any]) -> str:
        return engine_key(document)

    def run(self, task: Task, out_dir: Path) -> dict[str, Any]:
        if reason := unsupported(task["spec"]):
            raise ExecutionError(reason)
        if task.inputs is None:
            raise ExecutionError("inference needs rows", hint="give data, or inference.prompts")
        loaded = self._model(task)
        # Its batch is one of completions. Where stages of several `n` share it, the newest attempt's counts.
        self.rows_at_once = max(1, loaded.engine.batch // decoding_of(task.spec.inference).n)
        try:
            return _answer(task, task.inputs, loaded, out_dir)
        finally:
            self.broken = self.broken or loaded.engine.dead

    def close(self) -> None:
        with self._lock:
            if self._loaded is not None:
                self._loaded.engine.close()
                self._loaded = None

    def _model(self, task: Task) -> LoadedModel:
        """The engine, loaded by the first that asks while the others wait."""
        key = engine_key(task["spec"])
        with self._lock:
            if self.broken:
                raise HostCrashedError("the vLLM engine of this process is gone")
            if self._loaded is None:
                with library_messages(partial(task.report.log, level="warning")):
                    self._loaded = self._load(task)
                self._key = key
            elif self._key != key:
                raise ExecutionError("this process holds the vLLM engine of another model or of other arguments")
            if task.cancelled.is_set():
                raise ExecutionError("the attempt was cancelled")
            return self._loaded

    def _load(self, task: Task) -> LoadedModel:
        loading = prepare(task)
        task.report.log(f"loading {loading.files.name} into vLLM")
        try:
            return load(loading)
        except MlocError:
            self.broken = True  # what the engine's processes left behind goes with this one
            raise


def _answer(task: Task, inputs: Rows[Item], loaded: LoadedModel, out_dir: Path) -> dict[str, Any]:
    engine, spec = loaded.engine, task.spec
    task.report.progress(0, len(inputs))  # the engine is there; from now on others may share it
    sampler = sampler_of(spec.inference)
    engine.check(sampler)
    encoder = encoder_for(
        spec.inference, loaded.tokenizer, model=loaded.files.name, context_length=engine.context_length
    )
    files = adapter_of(task["spec"])
    adapter = None if files is None else engine.adapter(files)
    with AnswerRecord(task, inputs, out_dir) as record:
        done = 0
        prompts = _prompts(inputs, encoder, sampler)
        answers = engine.answer(prompts, samples=sampler.decoding.n, adapter=adapter, cancelled=task.cancelled)
        for items, waiting in answers:
            record.write(items)
            done += len(items)
            task.report.progress(done + waiting, len(inputs))
        return record.finish() if files is None else record.finish(adapter=files.name)


def _prompts(inputs: Rows[Item], encoder: PromptEncoder, sampler: Sampler) -> Iterator[Prompt | Ready[dict[str, Any]]]:
    assert encoder.context_length is not None
    for index, row in enumerate(inputs, start=inputs.start):
        try:
            ids = encoder.encode(row)
        except RowError as error:
            yield Ready(failed_item(index, row, str(error)))
        else:
            sampling = sampler.parameters(index, room=encoder.context_length - len(ids))
            yield Prompt(index=index, row=row, ids=ids, sampling=sampling)
