"""The three kinds of work of an attempt: execute a shard, split a stage into shards, merge their results."""

from __future__ import annotations

import contextlib
import fnmatch
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, BinaryIO

from mloc_tasks.artifacts import open_store, open_url
from mloc_tasks.attempt import Attempt
from mloc_tasks.cache import earlier_result
from mloc_tasks.data.inputs import Inputs, open_inputs
from mloc_tasks.data.items import RESPONSES, ItemReader
from mloc_tasks.data.merge import merge_shards
from mloc_tasks.data.slices import plan_slices
from mloc_tasks.delivery import deliver
from mloc_tasks.errors import ExecutionError, MlocError, StaleAttemptError, StoreError, UnresolvedReferenceError
from mloc_tasks.executors.base import Executor, InputSlice, Task, write_json
from mloc_tasks.executors.registry import executor_for
from mloc_tasks.hosting import run_hosted
from mloc_tasks.ledger import ShardRecord, ShardSlice, StageResult
from mloc_tasks.models.materialise import materialise
from mloc_tasks.references import parse_result, resolve
from mloc_tasks.saved_rows import RemainingRows, SavedRows, put_together, rows_key
from mloc_tasks.spec import StageSpec
from mloc_tasks.workplace import Workplace, get_workplace

STAGES_KEPT = 16
PARTS_FROM_ROWS = 100  # a shard with fewer rows keeps them in responses.json: one file less to write and to fetch


@dataclass(frozen=True, slots=True)
class Prepared:
    """A stage whose upstream is over: references resolved, parsed, inputs open. Never changes, so it is kept."""

    document: dict[str, Any]
    spec: StageSpec
    executor: Executor
    inputs: Inputs | None


@lru_cache(maxsize=STAGES_KEPT)
def prepare(run_id: str, stage: str, generation: int) -> Prepared:
    """Resolve, parse and open a stage, once for all of its shards in this process.

    `generation` of the run: when it is resumed, the stage's upstream may give another result than before.
    """
    place = get_workplace()
    job = place.ledger.stage_job(run_id, stage)
    document = resolve(job.document, lambda name: _result_of(place, run_id, name))
    spec = StageSpec.model_validate(document)
    executor = executor_for(spec)
    inputs = None
    if executor.needs_rows and has_rows(spec):
        inputs = open_inputs(spec, upstream=lambda name: result_reader(place, run_id, name), open_url=_open)
    return Prepared(document, spec, executor, inputs)


def has_rows(spec: StageSpec) -> bool:
    """Whether the stage names input rows."""
    return spec.data is not None or (spec.inference is not None and spec.inference.prompts is not None)


def execute(attempt: Attempt) -> StageResult:
    """Run the stage's executor over the shard's rows and store what it wrote."""
    job, record = attempt.job, attempt.record
    stage = prepare(job.run_id, job.stage, record.generation)
    rows = _rows(stage.inputs, record)
    if attempt.whole and (earlier := _earlier(attempt, stage)) is not None:
        return earlier
    with attempt.place.scratch(job.run_id) as out_dir:
        saved = _run(attempt, stage, rows, out_dir)
        result = _store(attempt, stage.spec, out_dir, items=None if rows is None else len(rows))
        if saved is not None:
            saved.remove()
        return result


def split(attempt: Attempt) -> StageResult | None:
    """Count the stage's rows, without loading them, and open its shards; or give an earlier result."""
    job, ledger = attempt.job, attempt.place.ledger
    stage = prepare(job.run_id, job.stage, attempt.record.generation)
    if stage.inputs is None:
        raise ExecutionError(
            f"spec.parallel is enabled, but the stage has no input rows to split ({stage.spec.task_type})",
            hint="give it `data`, or take `parallel` out",
        )
    if (earlier := _earlier(attempt, stage)) is not None:
        return earlier
    total = stage.inputs.count()
    slices = plan_slices(total, parallel=stage.spec.parallel, replicas=stage.spec.resources.replicas)
    most = attempt.place.settings.max_shards
    if len(slices) > most:
        raise ExecutionError(
            f"{total} rows make {len(slices)} shards, more than MLOC_MAX_SHARDS={most}",
            hint="raise parallel.shard_size, or set parallel.max_shards",
        )
    offsets = stage.inputs.offsets([start for start, _ in slices])
    shards = (
        ShardSlice(start=start, stop=stop, offset=offset) for (start, stop), offset in zip(slices, offsets, strict=True)
    )
    ledger.open_shards(job.run_id, job.stage, attempt=attempt.record.attempt, slices=shards, rows=total)
    return None


def merge(attempt: Attempt) -> StageResult:
    """Merge the shards' results in input order. Raises when a shard has none."""
    job, place = attempt.job, attempt.place
    records = sorted(place.ledger.shards(job.run_id, job.stage), key=lambda record: int(record.shard))
    _require_all(records)
    spec = prepare(job.run_id, job.stage, attempt.record.generation).spec

    def readers() -> Iterator[ItemReader]:
        for record in records:
            yield _reader(place, f"{job.run_id}/{job.stage}/{record.shard}/{record.attempt}")

    with place.scratch(job.run_id) as out_dir:
        result = merge_shards(readers(), out_dir)
        if not (out_dir / RESPONSES).exists():
            write_json(out_dir / RESPONSES, result)
        return _store(attempt, spec, out_dir, items=sum(r.rows.stop - r.rows.start for r in records if r.rows))


def result_reader(place: Workplace, run_id: str, stage: str) -> ItemReader:
    """The items of a finished stage."""
    return _reader(place, _result_prefix(place, run_id, stage))


def _run(attempt: Attempt, stage: Prepared, rows: InputSlice | None, out_dir: Path) -> SavedRows | None:
    """Run the stage's executor: here where it is light, in a host else. What it gives is `out_dir` with RESPONSES."""
    job, record = attempt.job, attempt.record
    parts = rows is not None and job.scattered and len(rows) >= PARTS_FROM_ROWS
    if not stage.executor.light:
        with _on_this_machine(attempt, stage) as document:
            host = partial(run_hosted, attempt, stage.executor, document, parts=parts)
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
    )
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
        open_url=_open,
        log=attempt.report.log,
        max_bytes=int(settings.model_cache_gib * 2**30),
    )


def _run_remaining(
    attempt: Attempt, stage: Prepared, rows: InputSlice, host: Callable[..., object], *, parts: bool, out_dir: Path
) -> SavedRows:
    """Have `host` run the rows that no earlier attempt has finished, saving what it finishes as it goes."""
    place, job, record = attempt.place, attempt.job, attempt.record
    upstream = [_result_prefix(place, job.run_id, name) for name in job.depends_on]
    shard = f"{job.run_id}/{job.stage}/{record.shard}"
    key = rows_key(stage.document, upstream)
    saved = SavedRows(place.store, shard, key, start=rows.start, every_sec=place.settings.save_rows_sec)
    if record.attempt == 1:
        _run_saving(host, rows, saved, out_dir)
        return saved
    with place.scratch(job.run_id) as before, place.scratch(job.run_id) as now:
        done = saved.fetch(before)
        if not done:
            _run_saving(host, rows, saved, out_dir)
            return saved
        attempt.report.log(f"{done} of {len(rows)} rows were finished by an earlier attempt")
        attempt.report.before = done
        folders = [before]
        if done < len(rows):
            _run_saving(host, RemainingRows(rows, done), saved, now)
            folders.append(now)
        put_together(folders, out_dir, start=rows.start, parts=parts)
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


def _earlier(attempt: Attempt, stage: Prepared) -> StageResult | None:
    place, run_id = attempt.place, attempt.job.run_id
    return earlier_result(
        attempt,
        stage.document,
        spec=stage.spec,
        executor=stage.executor,
        manifest_of=lambda name: place.store.manifest(_result_prefix(place, run_id, name)),
        open_url=_open,
    )


def _rows(inputs: Inputs | None, record: ShardRecord) -> InputSlice | None:
    if inputs is None:
        return None
    if record.rows is None:
        return inputs.slice(0, inputs.count())
    return inputs.slice(record.rows.start, record.rows.stop, record.rows.offset)


def _store(attempt: Attempt, spec: StageSpec, out_dir: Path, *, items: int | None) -> StageResult:
    place = attempt.place
    attempt.require_claim()
    if attempt.whole:
        _drop_unwanted(out_dir, spec.output.artifacts)
        if spec.output.destination is not None:
            deliver(out_dir, spec.output.destination, store=place.store, settings=place.settings)
    place.store.put_dir(out_dir, attempt.prefix, move=True)
    return StageResult(prefix=attempt.prefix, items=items)


def _drop_unwanted(out_dir: Path, wanted: tuple[str, ...] | None) -> None:
    """Leave only the files that `output.artifacts` names, and `responses.json`."""
    if not wanted:
        return
    for path in [path for path in out_dir.rglob("*") if path.is_file()]:
        name = path.relative_to(out_dir).as_posix()
        if name != RESPONSES and not any(fnmatch.fnmatch(name, pattern) for pattern in wanted):
            path.unlink()


def _require_all(records: list[ShardRecord]) -> None:
    failed = [record for record in records if record.error is not None]
    if failed:
        first = failed[0]
        hint = first.error.hint if first.error else ""
        raise ExecutionError(f"{len(failed)} of {len(records)} shards failed; the first is {first.error}", hint=hint)
    missing = [record.shard for record in records if not record.state.is_success]
    if missing:
        raise ExecutionError(f"{len(missing)} of {len(records)} shards were not run, among them shard {missing[0]}")


def _result_prefix(place: Workplace, run_id: str, stage: str) -> str:
    for record in place.ledger.stages(run_id):
        if record.name == stage and record.result is not None:
            return record.result.prefix
    raise UnresolvedReferenceError(f"stage {stage!r} of run {run_id} has no result")


def _result_of(place: Workplace, run_id: str, stage: str) -> dict[str, Any]:
    name = f"{_result_prefix(place, run_id, stage)}/{RESPONSES}"
    return parse_result(place.store.read_bytes(name), where=name)


def _reader(place: Workplace, prefix: str) -> ItemReader:
    return ItemReader(lambda name: place.store.open(f"{prefix}/{name}"), origin=prefix)


def _open(url: str) -> BinaryIO:
    settings = get_workplace().settings
    return open_url(url, endpoint_url=settings.s3_endpoint_url or None, path_style=settings.s3_path_style)
