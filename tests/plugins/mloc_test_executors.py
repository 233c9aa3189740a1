"""Executors that tests of faults need, installed as a plugin: put this folder on PYTHONPATH."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, ClassVar

from mloc_tasks.data.items import ItemWriter
from mloc_tasks.executors import ExecutionError, Executor, RetryableExecutionError, Task
from mloc_tasks.executors.generation.failures import FailureLimit


class SlowExecutor(Executor):
    """Takes `seconds` for each of its rows and gives them back; with `child: true` beside a process of its own.

    From attempt `quick_from` on, where that is given, it takes no time. With `until: FILE` it begins once that exists;
    `{}` in its name stands for the shard's first row. Attempt 1 goes no further than row `hangs_at`, if it has that.
    Rows from `bad_from` on fail, and more of them than the share `max_failed` fail the stage.
    """

    name: ClassVar[str] = "slow"
    needs_rows: ClassVar[bool] = True
    resumes_rows: ClassVar[bool] = True

    def run(self, task: Task, out_dir: Path) -> dict[str, Any]:
        assert task.inputs is not None
        if task["spec"].get("child"):
            subprocess.Popen(["sleep", "1000"])
        if until := task["spec"].get("until"):
            while not Path(until.format(task.inputs.start)).exists():
                time.sleep(0.02)
        quick = task.attempt >= task["spec"].get("quick_from", sys.maxsize)
        bad_from = task["spec"].get("bad_from", sys.maxsize)
        rows = len(task.inputs) + task.rows_before
        share = float(task["spec"].get("max_failed", 0))
        limit = FailureLimit(share, rows=rows, stage_rows=task.stage_rows, failed=task.failed_before)
        with ItemWriter(out_dir, parts=task.parts) as writer:
            for index, row in enumerate(task.inputs, start=task.inputs.start):
                time.sleep(0 if quick else task["spec"].get("seconds", 0))
                item = {"index": index, "input": row, "output": f"{row}!", "finish_reason": "stop"}
                if index >= bad_from:
                    item = {"index": index, "input": row, "ok": False, "error": "bad"}
                writer.write(item)
                limit.check([item])
                task.report.progress(index + 1 - task.inputs.start, len(task.inputs))
                while task.attempt == 1 and index == task["spec"].get("hangs_at"):
                    time.sleep(0.05)
            if task["spec"].get("lingers") and task.attempt == 1:
                time.sleep(1_000)
        usage = {"num_requests": len(task.inputs)}
        return writer.responses(ok=True, model="slow", usage=usage, adapter="a-quiet-one")


class CrashExecutor(Executor):
    """Kills the pool child in each attempt up to the one named by `survives`; 0: in all."""

    name: ClassVar[str] = "crash"
    light: ClassVar[bool] = True

    def run(self, task: Task, out_dir: Path) -> dict[str, Any]:
        survives = task["spec"].get("survives", 0)
        if not survives or task.attempt < survives:
            os.kill(os.getpid(), signal.SIGKILL)
        return {"ok": True, "attempt": task.attempt}


class FlakyExecutor(Executor):
    """Fails in a way that another attempt may cure, until the attempt named by `survives`."""

    name: ClassVar[str] = "flaky"

    def run(self, task: Task, out_dir: Path) -> dict[str, Any]:
        if task.attempt < task["spec"].get("survives", 1):
            raise RetryableExecutionError("the network is away")
        return {"ok": True, "attempt": task.attempt}


class BuggyExecutor(Executor):
    """Logs a line and then meets a bug of its own."""

    name: ClassVar[str] = "buggy"

    def run(self, task: Task, out_dir: Path) -> dict[str, Any]:
        logging.getLogger("buggy").warning("about to divide")
        return {"ok": 1 // 0}


class GateExecutor(Executor):
    """Gives its rows back; fails for one named `bad...` as long as the file `gate` does not exist."""

    name: ClassVar[str] = "gate"
    needs_rows: ClassVar[bool] = True

    def run(self, task: Task, out_dir: Path) -> dict[str, Any]:
        assert task.inputs is not None
        with ItemWriter(out_dir, parts=task.parts) as writer:
            for index, row in enumerate(task.inputs, start=task.inputs.start):
                if str(row).startswith("bad") and not Path(task["spec"]["gate"]).exists():
                    raise ExecutionError(f"the gate is closed to {row}")
                writer.write({"index": index, "input": row, "output": f"{row}!", "finish_reason": "stop"})
                task.report.progress(index + 1 - task.inputs.start, len(task.inputs))
        return writer.responses(ok=True, model="gate", usage={"num_requests": len(task.inputs)})


class QuittingExecutor(Executor):
    """Ends its process by itself, as a script would."""

    name: ClassVar[str] = "quitting"

    def run(self, task: Task, out_dir: Path) -> dict[str, Any]:
        sys.exit(3)
