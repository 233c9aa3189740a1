"""An executor whose process is worth keeping: it counts the tasks that it has done."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from mloc_tasks.executors import Executor, Task


class WarmExecutor(Executor):
    """Holds the "model" that `weights` names; takes `seconds`."""

    name: ClassVar[str] = "warm"
    keeps_model: ClassVar[bool] = True

    def __init__(self) -> None:
        self._done = 0

    @classmethod
    def host_key(cls, document: Mapping[str, Any]) -> str:
        return str(document.get("weights"))

    def run(self, task: Task, out_dir: Path) -> dict[str, Any]:
        time.sleep(task["spec"].get("seconds", 0))
        self._done += 1
        return {"ok": True, "model": task["spec"]["weights"], "pid": os.getpid(), "done": self._done}
