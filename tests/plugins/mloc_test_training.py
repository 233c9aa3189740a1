"""A training in miniature, which leaves the files of one, and a stage that loads what it is given the address of."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from mloc_tasks.executors import Executor, Task

LOOK_SEC = 0.01


class MiniatureExecutor(Executor):
    """Writes metrics and an adapter; a model where `full` asks for it, or something wants it.

    With `until` it ends once there is a file of that name.
    """

    name: ClassVar[str] = "miniature"
    artifact_fields: ClassVar[Mapping[str, str]] = {
        "metrics_url": "metrics.jsonl",
        "final_model_url": "final_model",
        "final_lora_url": "final_lora",
    }

    def run(self, task: Task, out_dir: Path) -> dict[str, Any]:
        steps = task["spec"].get("steps", 3)
        with (out_dir / "metrics.jsonl").open("w") as lines:
            for step in range(1, steps + 1):
                values = {"loss": 1 / step, "reward": step / 10}
                lines.write(json.dumps({"step": step, **values}) + "\n")
                task.report.metrics(step, values)
        while (until := task["spec"].get("until")) and not Path(until).exists():
            time.sleep(LOOK_SEC)
        self.save_json(out_dir / "final_lora" / "adapter_config.json", {"r": 8})
        (out_dir / "final_lora" / "adapter_model.safetensors").write_bytes(b"adapter")
        if task["spec"].get("full") or "final_model_url" in task.wanted:
            self.save_json(out_dir / "final_model" / "config.json", {"model_type": "miniature"})
            (out_dir / "final_model" / "model.safetensors").write_bytes(b"weights")
        return {"ok": True, "steps": steps, "wanted": sorted(task.wanted)}


class LoadingExecutor(Executor):
    """Gives the files of what `checkpoint.load` leads to, with their contents."""

    name: ClassVar[str] = "loading"

    def run(self, task: Task, out_dir: Path) -> dict[str, Any]:
        load = task["spec"]["checkpoint"]["load"]
        folder = Path(load["path"])
        files = {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}
        return {"ok": True, "type": load["type"], "files": {name: files[name] for name in sorted(files)}}
