"""A stage's answers on their way into its result: written in order, counted, and measured against the limits."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from mloc_tasks.data.items import RESPONSES, ItemWriter
from mloc_tasks.executors.generation.failures import FailureLimit
from mloc_tasks.models import model_name

if TYPE_CHECKING:
    from types import TracebackType

    from mloc_tasks.executors.base import InputSlice, Task


class AnswerRecord:
    """Takes the items of one task and makes its `responses.json`. A context manager; the latency counts from its start.

    Args:
        task: whose answers these are.
        inputs: its rows.
        out_dir: where the result's files go.
    """

    RESULT_FIELDS: ClassVar[frozenset[str]] = frozenset(
        {"ok", "model", "items", "items_failed", "items_total", "items_truncated", "items_parts", "usage"}
    )

    def __init__(self, task: Task, inputs: InputSlice, out_dir: Path) -> None:
        self._task = task
        self._out_dir = out_dir
        self._start = inputs.start
        self._limit = FailureLimit.of_task(task)
        self._usage = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
        self._writer = ItemWriter(out_dir, parts=task.parts)
        self._started = time.perf_counter()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()

    @property
    def next_index(self) -> int:
        """The `index` that the next item has to have: its row's position in the stage's whole input."""
        return self._start + len(self._writer)

    def write(self, items: Sequence[dict[str, Any]]) -> None:
        """Append items, in input order. Raises ExecutionError when more rows failed than the stage allows."""
        for item in items:
            self._writer.write(item)
            for name, tokens in item.get("usage", {}).items():
                self._usage[name] += tokens
        self._limit.check(items)

    def finish(self, **extra: Any) -> dict[str, Any]:
        """Write `responses.json`, with the fields `extra`, and return what is in it."""
        writer, task = self._writer, self._task
        if writer.failed:
            message = f"{writer.failed} of {len(writer)} rows failed; see the items with ok: false"
            task.report.log(message, level="warning")
        latency = round(time.perf_counter() - self._started, 3)
        usage = {**self._usage, "latency_sec": latency, "num_requests": len(writer)}
        result = writer.responses(ok=True, model=model_name(task.spec), usage=usage, **extra)
        text = json.dumps(result, ensure_ascii=False, indent=2)
        (self._out_dir / RESPONSES).write_text(text, encoding="utf-8")
        return result
