"""The evaluate executor: rows in, scores out, one at a time, so that no number of rows has to fit in memory."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from mloc_tasks.data.items import ItemReader, ItemWriter
from mloc_tasks.errors import ExecutionError
from mloc_tasks.executors.base import Executor, Rows, Task
from mloc_tasks.executors.evaluate.rows import scorer_of
from mloc_tasks.executors.evaluate.scores import Mean, Means, Name, nested
from mloc_tasks.executors.evaluate.tables import SUMMARY, TABLE, write_summary, write_table
from mloc_tasks.executors.generation.failures import FailureLimit

if TYPE_CHECKING:
    from mloc_tasks.spec.model.evaluate import Evaluate

REPORT_ROWS = 1_000
"""Rows between two reports of progress."""


class EvaluateExecutor(Executor):
    """Scores the items of a stage against references, by the metrics of the spec's `evaluate` block.

    A row is `{"item": upstream item, "reference": expected answer}` (mloc_tasks/data/scored.py). Rows that failed
    upstream, and rows that a metric could not score, are items with `ok: false`; they count as 0, or are left out of
    the means, as `failed_rows` says.
    """

    name: ClassVar[str] = "evaluate"
    light: ClassVar[bool] = True
    needs_rows: ClassVar[bool] = True
    result_fields: ClassVar[frozenset[str] | None] = frozenset(
        {
            *("ok", "model", "metrics", "summary", "usage"),
            *("items", "items_failed", "items_total", "items_truncated", "items_parts"),
        }
    )

    def run(self, task: Task, out_dir: Path) -> dict[str, Any]:
        evaluate = task.spec.evaluate
        if evaluate is None:
            raise ExecutionError("the stage does not say what it measures", hint="give it `evaluate: {metrics: [...]}`")
        if task.inputs is None:
            raise ExecutionError("evaluate needs rows", hint="write data: {type: stage, stage: NAME}")
        started = time.perf_counter()
        with ItemWriter(out_dir, parts=task.parts) as writer:
            means, upstream = _score_all(task, task.inputs, evaluate, writer)
        result = writer.responses(
            ok=True,
            model="",
            usage={
                **{name: 0 for name in ("prompt_tokens", "completion_tokens", "total_tokens")},
                "latency_sec": round(time.perf_counter() - started, 3),
                "num_requests": len(writer),
            },
            metrics=nested({name: mean.mean if mean.count else None for name, mean in means.items()}),
            summary=_summary(means, evaluate, rows=len(writer), upstream=upstream, failed=writer.failed),
        )
        self.save_json(out_dir / "responses.json", result)
        items = ItemReader(lambda name: (out_dir / name).open("rb")).items()
        write_table(out_dir / TABLE, items, list(means))
        note = _note(evaluate, rows=len(writer), failed=writer.failed)
        write_summary(out_dir / SUMMARY, means, note=note)
        for name, mean in means.items():
            if mean.count:
                task.report.log(f"{'.'.join(name)}: {mean.mean:.4f} over {mean.count} rows")
        return result


def _score_all(
    task: Task, inputs: Rows[dict[str, Any]], evaluate: Evaluate, writer: ItemWriter
) -> tuple[dict[Name, Mean], int]:
    """Each metric's mean, and how many rows had failed upstream."""
    scorer = scorer_of(evaluate)
    means = Means(scorer.known_names(), zero=evaluate.failed_rows == "zero")
    limit = FailureLimit.of_task(task)
    upstream = 0
    for number, row in enumerate(inputs, 1):
        item, scores = scorer.score(row, inputs.start + len(writer))
        writer.write(item)
        if scores is not None:
            means.add(scores)
        else:
            means.add_failed()
            upstream += row["item"].get("ok") is False
            limit.check([item])
        if number % REPORT_ROWS == 0 or number == len(inputs):
            task.report.progress(number, len(inputs))
    if writer.failed:
        task.report.log(_note(evaluate, rows=len(writer), failed=writer.failed), level="warning")
    return means.result(), upstream


def _summary(means: dict[Name, Mean], evaluate: Evaluate, *, rows: int, upstream: int, failed: int) -> dict[str, Any]:
    return {
        "rows": rows,
        "scored": rows - failed,
        "failed_upstream": upstream,
        "failed_scoring": failed - upstream,
        "failed_rows": evaluate.failed_rows,
        "metrics": nested(
            {
                name: {"mean": mean.mean if mean.count else None, "stderr": mean.stderr, "count": mean.count}
                for name, mean in means.items()
            }
        ),
    }


def _note(evaluate: Evaluate, *, rows: int, failed: int) -> str:
    if not failed:
        return f"{rows} rows."
    counted = "count as 0" if evaluate.failed_rows == "zero" else "are left out of the means"
    return f"{rows} rows; {failed} of them failed and {counted}."
