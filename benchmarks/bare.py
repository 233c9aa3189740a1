"""The peer of `overhead.py`: the canvas of a run as bare Celery tasks that do nothing."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery, Task, chord

from mloc_tasks.configuration import celery_settings
from mloc_tasks.settings import get_settings

app = Celery("bare")
app.conf.update(celery_settings(get_settings()))
if not os.environ.get("BENCH_CANVAS_BACKEND"):
    app.conf.result_backend = get_settings().celery_url  # Celery's own, as whoever uses bare Celery has it


@app.task(bind=True, name="bare.scatter")  # type: ignore[untyped-decorator]
def scatter(self: Task, run_id: str, stage: str, shards: int) -> Any:
    """Replace itself by `shards` no-ops and a body, as `mloc.scatter` does."""
    return self.replace(chord([shard.si(run_id, stage, number) for number in range(shards)], gather.si(run_id, stage)))


@app.task(name="bare.shard")  # type: ignore[untyped-decorator]
def shard(run_id: str, stage: str, number: int) -> dict[str, str]:
    """Nothing."""
    return {"state": "done"}


@app.task(name="bare.gather")  # type: ignore[untyped-decorator]
def gather(run_id: str, stage: str) -> dict[str, str]:
    """Nothing."""
    return {"state": "done"}


@app.task(name="bare.finish")  # type: ignore[untyped-decorator]
def finish(run_id: str) -> dict[str, str]:
    """Tell the benchmark that the run is over."""
    app.backend.client.rpush(f"bare:done:{run_id}", 1)
    return {"state": "done"}
