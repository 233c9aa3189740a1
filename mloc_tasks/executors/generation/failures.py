"""How many rows of a stage may fail before the stage does (`max_failed_items`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Self

from mloc_tasks.errors import ExecutionError

if TYPE_CHECKING:
    from mloc_tasks.executors.base import Task
    from mloc_tasks.spec import StageSpec


class FailureLimit:
    """Counts failed items and raises ExecutionError when they are more than the whole stage may have.

    A shard fails as soon as it alone has too many; whether all shards together have is seen when they are merged.

    Args:
        limit: 0 allows any number (they are reported); an int is a number of rows; a float a share of the stage's.
        rows: rows that are counted here: the shard's, or the stage's.
        stage_rows: rows of the stage; by default `rows`.
        failed: how many of `rows` have failed before.
        setting: where the spec says the limit, for the error.
    """

    def __init__(
        self,
        limit: int | float,
        *,
        rows: int,
        stage_rows: int | None = None,
        failed: int = 0,
        setting: str = "inference.max_failed_items",
    ) -> None:
        total = rows if stage_rows is None else stage_rows
        self._rows = rows
        self._failed = failed
        self._first = ""
        self._allowed = None if limit == 0 else int(limit * total) if isinstance(limit, float) else limit
        self._allows = f"{setting} {limit} allows {self._allowed}"
        if total != rows:
            self._allows += f" in the stage's {total}"

    @classmethod
    def of_task(cls, task: Task) -> Self:
        """The limit of a task's stage, for the task's rows."""
        assert task.inputs is not None
        rows = len(task.inputs) + task.rows_before
        limit, setting = _said(task.spec)
        return cls(limit, rows=rows, stage_rows=task.stage_rows, failed=task.failed_before, setting=setting)

    @classmethod
    def of_stage(cls, spec: StageSpec, *, rows: int, failed: int) -> Self:
        """The limit of a stage whose shards have `rows` rows, of which `failed` failed."""
        limit, setting = _said(spec)
        return cls(limit, rows=rows, failed=failed, setting=setting)

    def check(self, items: Iterable[Mapping[str, Any]] = ()) -> None:
        """Count the failed ones among `items`."""
        for item in items:
            if item.get("ok") is False:
                self._failed += 1
                self._first = self._first or f"row {item['index']}: {item['error']}"
        if self._allowed is not None and self._failed > self._allowed:
            first = f". The first was {self._first}" if self._first else ""  # others may have the first ones
            raise ExecutionError(f"{self._failed} of {self._rows} rows failed; {self._allows}{first}")


def _said(spec: StageSpec) -> tuple[int | float, str]:
    """The limit in a stage's spec, and where it stands."""
    section = {"evaluate": spec.evaluate, "embedding": spec.embedding}.get(spec.task_type, spec.inference)
    name = spec.task_type if spec.task_type in ("evaluate", "embedding") else "inference"
    return 0 if section is None else section.max_failed_items, f"{name}.max_failed_items"
