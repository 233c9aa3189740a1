"""Executors: one class per kind of work. A plugin needs only the names exported here.

    from mloc_tasks.executors import Executor, ExecutionError

    class MyCustomExecutor(Executor):
        name = "my-executor"

        def run(self, task, out_dir):
            result = {"ok": True, "message": "Task completed"}
            self.save_json(out_dir / "responses.json", result)
            return result

and, in the plugin's own package metadata, an entry point of group `mloc.executors` whose name is the task type:

    [project.entry-points."mloc.executors"]
    my-executor = "my_package:MyCustomExecutor"
"""

from mloc_tasks.executors.base import (
    ExecutionError,
    Executor,
    InputSlice,
    Item,
    Reporter,
    RetryableExecutionError,
    Row,
    Rows,
    Task,
    TrainingRow,
)
from mloc_tasks.executors.registry import (
    Registration,
    executor_class,
    executor_for,
    find,
    missing_reason,
    plugin_task_types,
    registered,
)

__all__ = [
    "ExecutionError",
    "Executor",
    "InputSlice",
    "Item",
    "Registration",
    "Reporter",
    "RetryableExecutionError",
    "Row",
    "Rows",
    "Task",
    "TrainingRow",
    "executor_class",
    "executor_for",
    "find",
    "missing_reason",
    "plugin_task_types",
    "registered",
]
