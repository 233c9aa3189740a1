"""What an executor is: code that does one task type, knowing nothing of Celery, Redis or S3."""

from __future__ import annotations

import json
import threading
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

from mloc_tasks.errors import ExecutionError, RetryableExecutionError

if TYPE_CHECKING:
    from mloc_tasks.spec import StageSpec

__all__ = [
    "ExecutionError",
    "Executor",
    "InputSlice",
    "Item",
    "Reporter",
    "RetryableExecutionError",
    "Row",
    "Rows",
    "Task",
    "TrainingRow",
]

Item = str | list[dict[str, Any]]
"""One input: a prompt, or a list of chat messages `{"role": ..., "content": ...}`."""

TrainingRow = dict[str, Any]
"""One row to train on; which keys it has `mloc_tasks.data.training_rows` says."""

Row = Item | dict[str, Any]
"""One row of any stage: an item where prompts are answered, a mapping where a model is trained or items are scored."""

RowT_co = TypeVar("RowT_co", covariant=True)


class Reporter(Protocol):
    """Where an executor says how far it is. Calls are cheap; the receiver throttles."""

    def progress(self, done: int, total: int | None = None) -> None: ...

    def log(self, message: str, *, level: str = "info") -> None: ...

    def metrics(self, step: int, values: dict[str, float]) -> None: ...


class Rows(Protocol[RowT_co]):
    """The rows of a stage's input that one shard works on, streamed.

    `start` is the position of the first row in the stage's whole input; iteration gives the rows in order.
    """

    start: int

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[RowT_co]: ...


InputSlice = Rows[Any]
"""Rows of whatever kind the stage's task type has. An executor that knows says `Rows[Item]`, `Rows[TrainingRow]`."""


class Task(dict[str, Any]):
    """One shard of a stage, as an executor gets it.

    As a mapping it is the stage's document with references resolved: `apiVersion`, `kind`, `metadata`, `spec`.

    Attributes:
        spec: the same `spec`, typed.
        inputs: the shard's rows, or None where the stage has none.
        report: progress, log lines and metrics go here.
        run_id, stage, shard, of, attempt: which attempt this is.
        parts: True asks for item files (`items-*.jsonl`) whatever the number of rows: a `gather` will copy them.
        cache_dir: where converted models and the like are kept between runs; None: the executor's own default.
        checkpoint_dir: where an executor that keeps checkpoints publishes them, each by one rename, as a directory
            `step-%08d` (names that begin with "." are in the making). Whoever called takes them from there, and removes
            older ones: a published one is neither changed nor removed by the executor. None: not asked for.
        resume_from: the newest complete checkpoint of an earlier attempt at the same stage, upstream results
            unchanged, to go on from; None: there is none. It may go once a newer one is published.
        wanted: the result fields of `artifact_fields`, and their archives, that later stages refer to or the output
            asks for: what is expensive to make and not among them may be left out.
        stage_rows: rows of the whole stage, all shards together; None where the stage is not split.
        rows_before, failed_before: the shard's rows that earlier attempts have done, and how many of them failed;
            `inputs` are the others.
        cancelled: set when the attempt shall end. A concurrent executor looks at it, because its process serves
            others too and is ended only when it does not; an exclusive one's process is ended.
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
        cache_dir: Path | None = None,
        checkpoint_dir: Path | None = None,
        resume_from: Path | None = None,
        wanted: Collection[str] = (),
        stage_rows: int | None = None,
        rows_before: int = 0,
        failed_before: int = 0,
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
        self.cache_dir = cache_dir
        self.checkpoint_dir = checkpoint_dir
        self.resume_from = resume_from
        self.wanted = frozenset(wanted)
        self.stage_rows = stage_rows
        self.rows_before = rows_before
        self.failed_before = failed_before
        self.cancelled = threading.Event()


class Executor(ABC):
    """Base class of all executors; subclass it, and register the class as an entry point of group `mloc.executors`.

    Class attributes:
        name: unique; also the task type it takes unless `task_types` says otherwise.
        task_types: the `spec.taskType` values it takes.
        light: True when a run takes milliseconds and no memory, so that the worker calls it inline. All others run in
            an executor host, a process of their own that holds the model between attempts (mloc_tasks/host).
        family: whose interpreter the host runs under, `MLOC_PYTHON_<FAMILY>`; default: the name.
        concurrent: True when one object takes calls of `run` from several threads at once, as a batching engine does.
        rows_at_once: of a concurrent object: how many rows it batches; 0 while it does not know, which it says by its
            next report of progress; None: any number. A worker gives it tasks until twice as many are in its hands.
        broken: of an object: True once it can do no more tasks (its engine has died); its process is then replaced.
        reusable: False when the process ends after one attempt, which frees all memory (training).
        needs_rows: True when the stage has input rows (`data`, `inference.prompts`) that can be sharded.
        resumes_rows: True when its items, written by an `ItemWriter`, are all that its rows give: an attempt may then
            be given only the rows that no earlier one has finished.
        keeps_checkpoints: True when it publishes checkpoints in `task.checkpoint_dir` and goes on from
            `task.resume_from`: they are then in the store while it works, and its next attempt gets the newest.
        keeps_model: True when the model stays loaded in the process after a run, which workers then show.
        version: part of a stage's fingerprint; change it when outputs change.
        result_fields: top-level names of its `responses.json`; None when they are not known beforehand.
            References of later stages are checked against them.
        artifact_fields: result field, ending in `_url` -> path of a file or directory below `out_dir`. The worker adds
            those that are there to `responses.json`, as addresses that later stages can load; for a directory also
            its archive, `X_archive_url`, where that is wanted.
    """

    name: ClassVar[str]
    task_types: ClassVar[tuple[str, ...]] = ()
    light: ClassVar[bool] = False
    family: ClassVar[str] = ""
    concurrent: ClassVar[bool] = False
    rows_at_once: int | None = None
    broken: bool = False
    reusable: ClassVar[bool] = True
    needs_rows: ClassVar[bool] = False
    resumes_rows: ClassVar[bool] = False
    keeps_checkpoints: ClassVar[bool] = False
    keeps_model: ClassVar[bool] = False
    version: ClassVar[str] = "1"
    result_fields: ClassVar[frozenset[str] | None] = None
    artifact_fields: ClassVar[Mapping[str, str]] = {}

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

    @classmethod
    def host_key(cls, document: Mapping[str, Any]) -> str:
        """What two stages must have in common to use one process: by default `model` and `checkpoint`.

        `document` is the stage's merged spec with snake_case keys and references resolved.
        """
        return json.dumps([document.get("model"), document.get("checkpoint")], sort_keys=True)

    def close(self) -> None:  # noqa: B027  # most hold nothing
        """Free what the object holds, within the grace; called before its process ends, unless that is killed."""

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
