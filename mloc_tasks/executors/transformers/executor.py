"""The Transformers inference executor: rows in, items out, in windows so that no shard has to fit in memory."""

from __future__ import annotations

import importlib.util
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from mloc_tasks.data.items import ItemWriter
from mloc_tasks.errors import ExecutionError, ModelError
from mloc_tasks.executors.base import Executor, InputSlice, Reporter, Task
from mloc_tasks.executors.transformers.answers import Answerer
from mloc_tasks.executors.transformers.batching import windows
from mloc_tasks.executors.transformers.decoding import decoding_of
from mloc_tasks.executors.transformers.failures import FailureLimit
from mloc_tasks.executors.transformers.loading import ModelCache
from mloc_tasks.executors.transformers.placement import place
from mloc_tasks.executors.transformers.prompts import PromptEncoder
from mloc_tasks.executors.transformers.support import unsupported
from mloc_tasks.models import ModelFiles, resolve
from mloc_tasks.models.library_messages import library_messages

if TYPE_CHECKING:
    from mloc_tasks.spec import StageSpec

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

    Args:
        cache_dir: where converted models are kept; default: the settings' `MLOC_CACHE_DIR`.
    """

    name: ClassVar[str] = "transformers"
    task_types: ClassVar[tuple[str, ...]] = ("inference",)
    needs_rows: ClassVar[bool] = True
    keeps_model: ClassVar[bool] = True
    result_fields: ClassVar[frozenset[str] | None] = frozenset(
        {"ok", "model", "items", "items_failed", "items_total", "items_truncated", "items_parts", "usage"}
    )

    def __init__(self, cache_dir: Path | None = None) -> None:
        self._cache_dir = cache_dir

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
            result = _answer_all(task, task.inputs, answerer, out_dir)
        (out_dir / "responses.json").write_text(json.dumps(result, ensure_ascii=False, indent=2), encoding="utf-8")
        return result

    @contextmanager
    def _answerer(self, task: Task, warn: partial[None]) -> Iterator[Answerer]:
        """The stage's model, loaded, with what the spec says about prompts and sampling; the model is ours within."""
        import torch

        spec = task.spec
        decoding = decoding_of(spec.inference)
        with _MODELS.exclusive(), library_messages(warn):
            files = self._files(spec, task.report)
            loaded = _MODELS.get(files, place(spec, cuda=torch.cuda.is_available()))
            chat = None if spec.inference is None else spec.inference.chat
            has_template = loaded.tokenizer.chat_template is not None
            if chat and not has_template:
                raise ExecutionError(f"inference.chat is true, but the model {files.name} has no chat template")
            encoder = PromptEncoder(
                tokenizer=loaded.tokenizer,
                chat=has_template if chat is None else chat,
                system_prompt=None if spec.inference is None else spec.inference.system_prompt,
                context_length=loaded.context_length,
            )
            limits = loaded.limits
            if spec.inference is not None and spec.inference.batch_size is not None:
                limits = replace(limits, sequences=spec.inference.batch_size * decoding.n)
            yield Answerer(loaded=loaded, encoder=encoder, decoding=decoding, limits=limits)

    def _files(self, spec: StageSpec, report: Reporter) -> ModelFiles:
        source = None if spec.model is None else spec.model.source
        if source is None:
            raise ModelError("inference needs a model", hint="set model.source.identifier")
        return resolve(
            kind=source.type,
            identifier=source.identifier,
            revision=source.revision,
            trust_remote_code=source.trust_remote_code,
            cache_dir=self._cache_dir or _default_cache_dir(),
            log=report.log,
        )


def _answer_all(task: Task, inputs: InputSlice, answerer: Answerer, out_dir: Path) -> dict[str, Any]:
    inference = task.spec.inference
    limit = FailureLimit(0 if inference is None else inference.max_failed_items, rows=len(inputs))
    usage = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    done = 0

    def answered(rows: int) -> None:
        nonlocal done
        done += rows
        task.report.progress(done, len(inputs))

    started = time.perf_counter()
    with ItemWriter(out_dir, parts=task.parts) as writer:
        for rows in windows(inputs, WINDOW_ROWS):
            items = answerer.answer(rows, start=inputs.start + len(writer), answered=answered)
            for item in items:
                writer.write(item)
                for name, tokens in item.get("usage", {}).items():
                    usage[name] += tokens
            limit.check(items)
    if writer.failed:
        task.report.log(f"{writer.failed} of {len(writer)} rows failed; see the items with ok: false", level="warning")
    latency = round(time.perf_counter() - started, 3)
    return writer.responses(
        ok=True,
        model=_model_name(task.spec),
        usage={**usage, "latency_sec": latency, "num_requests": len(writer)},
    )


def _model_name(spec: StageSpec) -> str:
    return spec.model.source.identifier if spec.model is not None and spec.model.source is not None else ""


def _default_cache_dir() -> Path:
    from mloc_tasks.settings import get_settings

    return get_settings().cache_dir.expanduser()


def _require_libraries() -> None:
    missing = [name for name in ("torch", "transformers") if importlib.util.find_spec(name) is None]
    if missing:
        message = f"the Transformers executor needs {' and '.join(missing)}, not installed on this worker"
        raise ExecutionError(message, hint="pip install 'mloc[inference]'")
