"""How a stage's executor is run: inline where it is light, in a host else, over the rows that nobody has finished."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from mloc_tasks import intake
from mloc_tasks.artifacts import open_store, open_url
from mloc_tasks.attempt import Attempt
from mloc_tasks.checkpoints.uploads import CheckpointUploads
from mloc_tasks.data.inputs import Inputs
from mloc_tasks.data.items import RESPONSES
from mloc_tasks.errors import MlocError, StaleAttemptError, StoreError
from mloc_tasks.executors.base import Executor, InputSlice, Task, write_json
from mloc_tasks.hosting import run_hosted
from mloc_tasks.models.materialise import materialise
from mloc_tasks.outputs import Outputs
from mloc_tasks.saved_rows import RemainingRows, SavedRows, put_together, rows_key
from mloc_tasks.spec import StageSpec
from mloc_tasks.workplace import get_workplace

PARTS_FROM_ROWS = 100  # a shard with fewer rows keeps them in responses.json: one file less to write and to fetch


@dataclass(frozen=True, slots=True)
class Prepared:
    """A stage whose upstream is over: references resolved, parsed, inputs open. Never changes, so it is kept.

    `upstream` are the prefixes of the results that it depends on; `outputs` says what becomes of its files.
    """

    document: dict[str, Any]
    spec: StageSpec
    executor: Executor
    inputs: Inputs | None
    upstream: tuple[str, ...]
    outputs: Outputs


def run_executor(
    attempt: Attempt,
    stage: Prepared,
    rows: InputSlice | None,
    out_dir: Path,
    checkpoints: CheckpointUploads | None = None,
) -> SavedRows | None:
    """Run the stage's executor over `rows`, so that `out_dir` holds what it wrote, and RESPONSES.

    `checkpoints`, for an executor that keeps them, go to the store meanwhile. Gives the rows saved on the way, to be
    removed once the result is stored.
    """
    job, record = attempt.job, attempt.record
    parts = rows is not None and job.scattered and len(rows) >= PARTS_FROM_ROWS
    if not stage.executor.light:
        with _on_this_machine(attempt, stage) as document:
            host = partial(run_hosted, attempt, stage.executor, document, parts=parts, wanted=stage.outputs.wanted)
            if checkpoints is not None:
                host(
                    rows=rows,
                    out_dir=out_dir,
                    look_too=checkpoints.look,
                    checkpoint_dir=checkpoints.checkpoint_dir,
                    resume_from=checkpoints.resume_from,
                )
                return None
            if rows is not None and stage.executor.resumes_rows:
                return _run_remaining(attempt, stage, rows, host, parts=parts, out_dir=out_dir)
            host(rows=rows, out_dir=out_dir)
            return None
    task = Task(
        {**job.header, "spec": stage.document},
        spec=stage.spec,
        report=attempt.report,
        inputs=rows,
        run_id=job.run_id,
        stage=job.stage,
        shard=int(record.shard),
        attempt=record.attempt,
        parts=parts,
        stage_rows=attempt.place.ledger.division(job.run_id, job.stage).rows if job.scattered else None,
        wanted=stage.outputs.wanted,
    )
    intake.place((job.run_id, job.stage, record.shard))
    result = stage.executor.run(task, out_dir)
    if not (out_dir / RESPONSES).exists():
        write_json(out_dir / RESPONSES, result)
    return None


def _on_this_machine(attempt: Attempt, stage: Prepared) -> AbstractContextManager[dict[str, Any]]:
    """The stage's document with models, adapters and checkpoints as paths, which stay there within the block."""
    settings = attempt.place.settings
    return materialise(
        stage.document,
        cache_dir=settings.cache_dir,
        open_store=partial(
            open_store, endpoint_url=settings.s3_endpoint_url or None, path_style=settings.s3_path_style
        ),
        open_url=open_input,
        log=attempt.report.log,
        fetching=partial(intake.place, (attempt.job.run_id, attempt.job.stage, attempt.record.shard)),
        max_bytes=int(settings.model_cache_gib * 2**30),
    )


def _run_remaining(
    attempt: Attempt, stage: Prepared, rows: InputSlice, host: Callable[..., object], *, parts: bool, out_dir: Path
) -> SavedRows:
    """Have `host` run the rows that no earlier attempt has finished, saving what it finishes as it goes."""
    place, job, record = attempt.place, attempt.job, attempt.record
    shard = f"{job.run_id}/{job.stage}/{record.shard}"
    key = rows_key(stage.document, stage.upstream)
    saved = SavedRows(place.store, shard, key, start=rows.start, every_sec=place.settings.save_rows_sec)
    if record.attempt == 1:
        _run_saving(host, rows, saved, out_dir)
        return saved
    with place.scratch(job.run_id) as before, place.scratch(job.run_id) as now:
        # One row at least is done again where all are saved: what else the result says comes from the executor.
        done = saved.fetch(before, most=len(rows) - 1)
        if not done:
            _run_saving(host, rows, saved, out_dir)
            return saved
        attempt.report.log(f"{done} of {len(rows)} rows were finished by an earlier attempt")
        attempt.report.before = done
        remaining = partial(host, rows_before=done, failed_before=saved.failed)
        _run_saving(remaining, RemainingRows(rows, done), saved, now)
        put_together(before, now, out_dir, start=rows.start, parts=parts)
    return saved


def _run_saving(host: Callable[..., object], rows: InputSlice, saved: SavedRows, out_dir: Path) -> None:
    saved.begin(out_dir)
    try:
        host(rows=rows, out_dir=out_dir, look_too=saved.look)
    except StaleAttemptError:
        raise
    except MlocError:
        with contextlib.suppress(StoreError):
            saved.save()
        raise
    finally:
        saved.end(out_dir)


def open_input(url: str) -> BinaryIO:
    """Open an s3:// or http(s):// address with this worker's settings."""
    settings = get_workplace().settings
    return open_url(url, endpoint_url=settings.s3_endpoint_url or None, path_style=settings.s3_path_style)
