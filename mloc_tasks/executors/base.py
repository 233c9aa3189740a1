"""What an executor is: code that does one task type, knowing nothing of Celery, Redis or S3."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from mloc_tasks.errors import ExecutionError, RetryableExecutionError

if TYPE_CHECKING:
    from mloc_tasks.spec import StageSpec

__all__ = ["ExecutionError", "Executor", "InputSlice", "Item", "Reporter", "RetryableExecutionError", "Task"]

Item = str | list[dict[str, Any]]
"""One input: a prompt, or a list of chat messages `{"role": ..., "content": ...}`."""


class Reporter(Protocol):
    """Where an executor says how far it is. Calls are cheap; the receiver throttles."""

    def progress(self, done: int, total: int | None = None) -> None: ...

    def log(self, message: str, *, level: str = "info") -> None: ...

    def metrics(self, step: int, values: dict[str, float]) -> None: ...


class InputSlice(Protocol):
    """The rows of a stage's input that one shard works on, streamed.

    `start` is the position of the first row in the stage's whole input; iteration gives the rows in order.
    """

    start: int

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Item]: ...


class Task(dict[str, Any]):
    """One shard of a stage, as an executor gets it.

    As a mapping it is the stage's document with references resolved: `apiVersion`, `kind`, `metadata`, `spec`.

    Attributes:
        spec: the same `spec`, typed.
        inputs: the shard's rows, or None for a task type without rows (training).
        report: progress, log lines and metrics go here.
        run_id, stage, shard, of, attempt: which attempt this is.
        parts: True asks for item files (`items-*.jsonl`) whatever the number of rows: a `gather` will copy them.
    """

    def __init__(
        self,
        document: dict[str, Any],
        *,
        spec: StageSpec,
        report: Reporter,
        inputs: InputSlice | None = None,
        run_id: str = "",
        stage: str = "",
        shard: int = 0,
        of: int = 1,
        attempt: int = 1,
        parts: bool = False,
    ) -> None:
        super().__init__(document)
        self.spec = spec
        self.report = report
        self.inputs = inputs
        self.run_id = run_id
        self.stage = stage
        self.shard = shard
        self.of = of
        self.attempt = attempt
        self.parts = parts


class Executor(ABC):
    """Base class of all executors; subclass it, and register the class as an entry point of group `mloc.executors`.

    Class attributes:
        name: unique; also the task type it takes unless `task_types` says otherwise.
        task_types: the `spec.taskType` values it takes.
        light: True when a run takes milliseconds and no memory, so that the worker calls it inline.
        needs_rows: True when the stage has input rows (`data`, `inference.prompts`) that can be sharded.
        keeps_model: True when the model stays loaded in the process after a run, which workers then show.
        version: part of a stage's fingerprint; change it when outputs change.
        result_fields: top-level names of its `responses.json`; None when they are not known beforehand.
            References of later stages are checked against them.
    """

    name: ClassVar[str]
    task_types: ClassVar[tuple[str, ...]] = ()
    light: ClassVar[bool] = False
    needs_rows: ClassVar[bool] = False
    keeps_model: ClassVar[bool] = False
    version: ClassVar[str] = "1"
    result_fields: ClassVar[frozenset[str] | None] = None

    @abstractmethod
    def run(self, task: Task, out_dir: Path) -> dict[str, Any]:
        """Do the work; write every output file under `out_dir`; return what `responses.json` holds.

        `out_dir` exists and is empty. Files that lie there when this returns become the attempt's artifacts.
        Raises `ExecutionError` for a permanent failure, `RetryableExecutionError` where another attempt may succeed.
        """

    @classmethod
    def unsupported(cls, document: Mapping[str, Any]) -> str | None:
        """Why this executor cannot do a stage of its task type, or None; asked before the run is accepted.

        `document` is the stage's merged spec with snake_case keys; references in it are still text. Asked of the
        built-in executors only, because it imports the executor's module.
        """
        return None

    def save_json(self, path: Path, value: Any) -> None:
        """Write `value` as UTF-8 JSON, creating parent folders."""
        write_json(path, value)

    @classmethod
    def takes(cls) -> tuple[str, ...]:
        """The task types this executor takes."""
        return cls.task_types or (cls.name,)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented UTF-8 JSON, creating parent folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
