"""An executor that trains: each step takes a while, builds on the one before, and is noted in a file of the test."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path
from typing import Any, ClassVar

from mloc_tasks.executors import ExecutionError, Executor, RetryableExecutionError, Task

FAILURES = {"retryable": RetryableExecutionError, "final": ExecutionError}


class CheckpointedExecutor(Executor):
    """Does `steps` steps of `seconds` each, with a checkpoint of `bytes` after every `every`.

    What it has learned is a digest that each step goes into, so that a step left out or done twice shows. Lines
    `<attempt> <step>` go to the file `journal`, if there is one. `fail: {"2": [7, "final"]}`: attempt 2 fails after
    step 7. `stops: {"1": 30}`: attempt 1 waits after step 30 for the file `released`. `gate`: a file without which it
    waits after its last step.
    """

    name: ClassVar[str] = "checkpointed"
    keeps_checkpoints: ClassVar[bool] = True
    reusable: ClassVar[bool] = False

    def run(self, task: Task, out_dir: Path) -> dict[str, Any]:
        spec = task["spec"]
        state = {"step": 0, "learned": ""}
        if task.resume_from is not None:
            state = json.loads((task.resume_from / "nested" / "state.json").read_text())
        first = state["step"]
        while state["step"] < spec["steps"]:
            time.sleep(spec.get("seconds", 0))
            state = step_after(state)
            if "journal" in spec:
                with Path(spec["journal"]).open("a") as journal:
                    journal.write(f"{task.attempt} {state['step']}\n")
            if state["step"] % spec.get("every", 1) == 0:
                publish(task, state, size=spec.get("bytes", 10))
            task.report.progress(state["step"], spec["steps"])
            at, kind = spec.get("fail", {}).get(str(task.attempt), (0, ""))
            if state["step"] == at:
                raise FAILURES[kind](f"failed after step {at}")
            while spec.get("stops", {}).get(str(task.attempt)) == state["step"] and not Path(spec["released"]).exists():
                time.sleep(0.05)
        while spec.get("gate") and not Path(spec["gate"]).exists():
            time.sleep(0.05)
        return {"ok": True, "model": "checkpointed", "began_after": first, "learned": state["learned"]}


def step_after(state: dict[str, Any]) -> dict[str, Any]:
    """One step of the training."""
    step = state["step"] + 1
    return {"step": step, "learned": hashlib.sha256(f"{state['learned']} {step}".encode()).hexdigest()}


def learned_after(steps: int) -> str:
    """What an undisturbed training of so many steps has learned."""
    state: dict[str, Any] = {"step": 0, "learned": ""}
    for _ in range(steps):
        state = step_after(state)
    return str(state["learned"])


def publish(task: Task, state: dict[str, Any], *, size: int) -> None:
    assert task.checkpoint_dir is not None
    making = task.checkpoint_dir / ".making"
    (making / "nested").mkdir(parents=True)
    (making / "nested" / "state.json").write_text(json.dumps(state))
    (making / "weights.bin").write_bytes(bytes(size))
    making.rename(task.checkpoint_dir / f"step-{state['step']:08d}")
