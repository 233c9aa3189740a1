"""The three kinds of work of an attempt: execute a shard, split a stage into shards, merge their results."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from mloc_tasks.attempt import Attempt
from mloc_tasks.cache import earlier_result
from mloc_tasks.checkpoints.keeping import keeping_checkpoints
from mloc_tasks.data.inputs import Inputs, open_inputs
from mloc_tasks.data.items import RESPONSES, ItemReader
from mloc_tasks.data.merge import merge_shards
from mloc_tasks.data.slices import plan_slices
from mloc_tasks.delivery import deliver
from mloc_tasks.errors import ExecutionError, UnresolvedReferenceError
from mloc_tasks.execution import Prepared, open_input, run_executor
from mloc_tasks.executors.base import Executor, InputSlice, write_json
from mloc_tasks.executors.generation.failures import FailureLimit
from mloc_tasks.executors.registry import executor_for
from mloc_tasks.ledger import ShardRecord, ShardSlice, StageJob, StageResult
from mloc_tasks.outputs import Outputs, fields_referred_to
from mloc_tasks.references import parse_result, resolve
from mloc_tasks.spec import StageSpec
from mloc_tasks.workplace import Workplace, get_workplace

STAGES_KEPT = 16


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
        inputs = open_inputs(spec, upstream=lambda name: result_reader(place, run_id, name), open_url=open_input)
    upstream = tuple(_result_prefix(place, run_id, name) for name in job.depends_on)
    outputs = Outputs.of(executor.artifact_fields, spec.output, referenced=_referenced(place, job, executor))
    return Prepared(document, spec, executor, inputs, upstream, outputs)


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
    with attempt.place.scratch(job.run_id) as out_dir, keeping_checkpoints(attempt, stage) as checkpoints:
        saved = run_executor(attempt, stage, rows, out_dir, checkpoints)
        result = _store(attempt, stage, out_dir, items=None if rows is None else len(rows))
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
    """Merge the shards' results in input order. Raises when a shard has none, or too many rows failed in all."""
    job, place = attempt.job, attempt.place
    records = sorted(place.ledger.shards(job.run_id, job.stage), key=lambda record: int(record.shard))
    _require_all(records)
    stage = prepare(job.run_id, job.stage, attempt.record.generation)

    def readers() -> Iterator[ItemReader]:
        for record in records:
            yield _reader(place, f"{job.run_id}/{job.stage}/{record.shard}/{record.attempt}")

    with place.scratch(job.run_id) as out_dir:
        result = merge_shards(readers(), out_dir)
        if not (out_dir / RESPONSES).exists():
            write_json(out_dir / RESPONSES, result)
        rows = sum(record.rows.stop - record.rows.start for record in records if record.rows)
        merged = ItemReader(lambda name: (out_dir / name).open("rb"))
        FailureLimit.of_stage(stage.spec, rows=rows, failed=merged.failed).check()
        return _store(attempt, stage, out_dir, items=rows)


def result_reader(place: Workplace, run_id: str, stage: str) -> ItemReader:
    """The items of a finished stage."""
    return _reader(place, _result_prefix(place, run_id, stage))


def _earlier(attempt: Attempt, stage: Prepared) -> StageResult | None:
    place, run_id = attempt.place, attempt.job.run_id
    return earlier_result(
        attempt,
        stage.document,
        spec=stage.spec,
        executor=stage.executor,
        outputs=stage.outputs,
        manifest_of=lambda name: place.store.manifest(_result_prefix(place, run_id, name)),
        open_url=open_input,
    )


def _rows(inputs: Inputs | None, record: ShardRecord) -> InputSlice | None:
    if inputs is None:
        return None
    if record.rows is None:
        return inputs.slice(0, inputs.count())
    return inputs.slice(record.rows.start, record.rows.stop, record.rows.offset)


def _store(attempt: Attempt, stage: Prepared, out_dir: Path, *, items: int | None) -> StageResult:
    place = attempt.place
    attempt.require_claim()
    if attempt.whole:
        stage.outputs.complete(out_dir, lambda path: place.store.url_of(f"{attempt.prefix}/{path}"))
        if stage.spec.output.destination is not None:
            deliver(out_dir, stage.spec.output.destination, attempt=attempt)
    place.store.put_dir(out_dir, attempt.prefix, move=True)
    return StageResult(prefix=attempt.prefix, items=items)


def _referenced(place: Workplace, job: StageJob, executor: Executor) -> frozenset[str]:
    """The fields of the stage's result that other stages of the run refer to; asked where some are addresses."""
    if not executor.artifact_fields:
        return frozenset()
    stages = place.ledger.run(job.run_id).stages
    return fields_referred_to(job.stage, (place.ledger.stage_job(job.run_id, name).document for name in stages))


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
