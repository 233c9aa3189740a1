"""The echo executor: gives its input back. It shows that the way from spec to result works, without any model."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, ClassVar

from mloc_tasks.executors.base import Executor, InputSlice, Item, Task

MODEL = "echo"


class EchoExecutor(Executor):
    """Returns every input row as an item, or, without rows, `{"ok": true, "message": spec.message}`.

    A row's output is `spec.message` when there is one, else the row's text (of a chat: the last message's content).
    """

    name: ClassVar[str] = "echo"
    light: ClassVar[bool] = True
    needs_rows: ClassVar[bool] = True

    def run(self, task: Task, out_dir: Path) -> dict[str, Any]:
        message = task["spec"].get("message")
        if task.inputs is None:
            result = {"ok": True, "message": "" if message is None else message}
        else:
            result = _echo_rows(task, task.inputs, message, out_dir)
        # Not `save_json`: indenting costs more than all the rest of a no-op shard.
        (out_dir / "responses.json").write_text(json.dumps(result, ensure_ascii=False), encoding="utf-8")
        return result


def _echo_rows(task: Task, inputs: InputSlice, message: str | None, out_dir: Path) -> dict[str, Any]:
    from mloc_tasks.data.items import ItemWriter

    started = time.perf_counter()
    with ItemWriter(out_dir, parts=task.parts) as writer:
        for index, row in enumerate(inputs, start=inputs.start):
            output = _text(row) if message is None else message
            writer.write({"index": index, "input": row, "output": output, "finish_reason": "stop"})
    usage = {
        "prompt_tokens": 0,
        "completion_tokens": 0,
        "total_tokens": 0,
        "latency_sec": round(time.perf_counter() - started, 6),
        "num_requests": len(inputs),
    }
    task.report.progress(len(inputs), len(inputs))
    return writer.responses(ok=True, model=MODEL, usage=usage)


def _text(row: Item) -> str:
    return row if isinstance(row, str) else str(row[-1].get("content", "")) if row else ""
