"""What runs while things break: a pipeline of sharded stages with a diamond, a training, and what must come of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.plugins.mloc_test_checkpoints import learned_after

ROWS = 240
ATTEMPTS = 12  # several faults may hit one shard
BACKOFF_SEC = 0.2


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """`noop` (echo) -> `slow` -> {`left`, `right`} -> `merged`, and `trained` -> `merged`.

    `seconds` is what a row takes in the slow stages, and `step_seconds` a step of the training.
    """

    rows: int = ROWS
    seconds: float = 0.03
    noop_rows: int = 2  # per shard, as all that follow
    slow_rows: int = 4
    branch_rows: int = 8
    steps: int = 60
    step_seconds: float = 0.05
    steps_per_checkpoint: int = 5

    @property
    def shards(self) -> dict[str, int]:
        """How many shards each stage has."""
        return {
            "noop": self.rows // self.noop_rows,
            "slow": self.rows // self.slow_rows,
            "left": self.rows // self.branch_rows,
            "right": self.rows // self.branch_rows,
            "trained": 1,
            "merged": 1,
        }

    @property
    def total(self) -> int:
        return sum(self.shards.values())

    def document(self) -> dict[str, Any]:
        """The spec as `submit_yaml` takes it."""
        stages = [
            _stage("noop", "echo", self.noop_rows, [], {"type": "list", "items": self._inputs()}),
            _stage("slow", "slow", self.slow_rows, ["noop"], _from("noop"), seconds=self.seconds),
            _stage("left", "slow", self.branch_rows, ["slow"], _from("slow"), seconds=self.seconds / 3),
            _stage("right", "echo", self.branch_rows, ["slow"], _from("slow")),
            {
                "name": "trained",
                "taskType": "checkpointed",
                "dependsOn": [],
                "steps": self.steps,
                "seconds": self.step_seconds,
                "every": self.steps_per_checkpoint,
            },
            {
                "name": "merged",
                "taskType": "echo",
                "dependsOn": ["left", "right", "trained"],
                "message": "merged",
                "params": {"left": "${left.items}", "right": "${right.items}", "learned": "${trained.learned}"},
            },
        ]
        spec: dict[str, Any] = {
            "stages": stages,
            "retry": {"maxAttempts": ATTEMPTS, "backoffSeconds": BACKOFF_SEC},
        }
        return {"apiVersion": "mloc/v1", "kind": "Workflow", "metadata": {"name": "chaos"}, "spec": spec}

    def expected(self) -> dict[str, Any]:
        """The result of the run, computed without running it."""
        slow = [f"{row}!" for row in self._inputs()]
        left = [_item(index, row, f"{row}!") for index, row in enumerate(slow)]
        right = [_item(index, row, row) for index, row in enumerate(slow)]
        learned = learned_after(self.steps)
        return {"ok": True, "message": "merged", "left": left, "right": right, "learned": learned}

    def _inputs(self) -> list[str]:
        return [f"row {number}" for number in range(self.rows)]


PIPELINE = Pipeline()


def _stage(
    name: str, task_type: str, shard_size: int, after: list[str], data: dict[str, Any], **more: Any
) -> dict[str, Any]:
    parallel = {"enabled": True, "shard_size": shard_size}
    return {"name": name, "taskType": task_type, "dependsOn": after, "data": data, "parallel": parallel, **more}


def _from(stage: str) -> dict[str, Any]:
    return {"type": "stage", "stage": stage}


def _item(index: int, row: str, output: str) -> dict[str, Any]:
    return {"index": index, "input": row, "output": output, "finish_reason": "stop"}
