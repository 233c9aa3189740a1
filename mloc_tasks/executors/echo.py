"""The echo executor: gives its input back. It shows that the way from spec to result works, without any model."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from mloc_tasks.executors.base import ExecutionError, Executor, Item, Rows, Task

MODEL = "echo"
OWN_FIELDS = frozenset({"ok", "model", "message", "items", "usage"})


class EchoExecutor(Executor):
    """Returns every input row as an item, or, without rows, `{"ok": true, "message": spec.message}`.

    A row's output is `spec.message` when there is one, else the row's text (of a chat: the last message's content).
    The values under `spec.params` are fields of the result, too, so that a later stage can reference them.
    """

    name: ClassVar[str] = "echo"
    light: ClassVar[bool] = True
    needs_rows: ClassVar[bool] = True

    def run(self, task: Task, out_dir: Path) -> dict[str, Any]:
        # The plain document: this is the no-op of the overhead benchmark, and typed access costs more.
        message, params = task["spec"].get("message"), task["spec"].get("params") or {}
        if taken := sorted(name for name in params if name in OWN_FIELDS or name.startswith("items_")):
            raise ExecutionError(f"spec.params.{taken[0]}: the result has a field of that name already")
        if task.inputs is None:
            result = {"ok": True, "message": "" if message is None else message, **params}
        else:
            result = _echo_rows(task, task.inputs, None if message is None else _text_of(message), params, out_dir)
        # Not `save_json`: indenting costs more than all the rest of a no-op shard.
        (out_dir / "responses.json").write_text(json.dumps(result, ensure_ascii=False), encoding="utf-8")
        return result


def _echo_rows(
    task: Task, inputs: Rows[Item], message: str | None, params: Mapping[str, Any], out_dir: Path
) -> dict[str, Any]:
    from mloc_tasks.data.items import ItemWriter

    started = time.perf_counter()
    with ItemWriter(out_dir, parts=task.parts) as writer:
        for index, row in enumerate(inputs, start=inputs.start):
            output = _last_text(row) if message is None else message
            writer.write({"index": index, "input": row, "output": output, "finish_reason": "stop"})
    usage = {
        "prompt_tokens": 0,
        "completion_tokens": 0,
        "total_tokens": 0,
        "latency_sec": round(time.perf_counter() - started, 6),
        "num_requests": len(inputs),
    }
    task.report.progress(len(inputs), len(inputs))
    return writer.responses(ok=True, model=MODEL, usage=usage, **params)


def _last_text(row: Item) -> str:
    if isinstance(row, str):
        return row
    return _text_of(row[-1].get("content", "")) if row else ""


def _text_of(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
