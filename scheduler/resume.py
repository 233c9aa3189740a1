"""Runs taken up again where they ended: what is to run again, and its messages."""

from __future__ import annotations

from collections.abc import Sequence

from celery import Celery, Signature

from mloc_tasks import signatures
from mloc_tasks.configuration import sending_app
from mloc_tasks.errors import BrokerError, ResumeError
from mloc_tasks.ledger import Failure, Ledger, RunRecord, StageRecord, State
from mloc_tasks.settings import Settings
from scheduler.canvas import build_canvas
from scheduler.parts import decompose
from scheduler.plan import Plan, PlannedStage

Reopened = dict[str, bool]
"""Stages to queue again; True: all of the stage, also what is done."""


def resume(run_id: str, *, ledger: Ledger, settings: Settings, from_stage: str | None = None) -> tuple[str, ...]:
    """Run what an ended run has not done; with `from_stage` also that stage and all that depends on it, done or not.

    Returns the names of the stages that run again. Raises ResumeError where that is none, or the run is still going.
    """
    run, stages = ledger.run(run_id), ledger.stages(run_id)
    return _reopen(run, stages_to_resume(run, stages, from_stage), ledger=ledger, settings=settings)


def retry_failed(run_id: str, *, ledger: Ledger, settings: Settings) -> tuple[str, ...]:
    """Run the failed shards and stages of an ended run again, and what was skipped because of them.

    Returns and raises as `resume`.
    """
    run, stages = ledger.run(run_id), ledger.stages(run_id)
    return _reopen(run, stages_to_retry(run, stages), ledger=ledger, settings=settings)


def stages_to_resume(run: RunRecord, stages: Sequence[StageRecord], from_stage: str | None = None) -> Reopened:
    """All stages that are not done; from `from_stage` on, all of them."""
    _require_ended(run)
    anew = set() if from_stage is None else _downstream(stages, from_stage)
    chosen = {stage.name: stage.name in anew for stage in stages if stage.name in anew or not stage.state.is_success}
    if not chosen:
        hint = f"run a stage of it again, and what depends on it: mloc resume {run.id} --from STAGE"
        raise ResumeError(f"run {run.id} is {run.state}: nothing of it is left to do", hint=hint)
    return chosen


def stages_to_retry(run: RunRecord, stages: Sequence[StageRecord]) -> Reopened:
    """The failed stages, and the skipped ones that depend on no cancelled one."""
    _require_ended(run)
    if not any(stage.state is State.FAILED for stage in stages):
        hint = f"what is not done for another reason runs with: mloc resume {run.id}" if run.state != "done" else ""
        raise ResumeError(f"run {run.id} is {run.state}: no stage of it failed", hint=hint)
    cancelled = [stage.name for stage in stages if stage.state is State.CANCELLED]
    out_of_reach = {name for each in cancelled for name in _downstream(stages, each)}
    wanted = (State.FAILED, State.SKIPPED)
    return {stage.name: False for stage in stages if stage.state in wanted and stage.name not in out_of_reach}


def canvas_of_rest(app: Celery, run: RunRecord, stages: Sequence[StageRecord]) -> Signature:
    """The messages of all stages that are not over, and the run's end."""
    planned = tuple(_planned(stage) for stage in stages)
    open_names = {stage.name for stage in stages if not stage.state.is_final}
    dependencies = {
        stage.name: tuple(name for name in stage.depends_on if name in open_names)
        for stage in stages
        if stage.name in open_names
    }
    if not dependencies:
        queue = next(stage.queue for stage in stages if stage.name == run.result_stage)
        return signatures.finish(app, run.id, queue=queue)
    plan = Plan(name=run.name, stages=planned, root=decompose(dependencies), result_stage=run.result_stage)
    return build_canvas(app, run.id, plan)


def send_rest(run_id: str, *, ledger: Ledger, settings: Settings) -> None:
    """Send the messages of what is not over. Raises BrokerError."""
    canvas = canvas_of_rest(sending_app(settings), ledger.run(run_id), ledger.stages(run_id))
    try:
        canvas.apply_async()
    except Exception as error:
        raise BrokerError(f"run {run_id}: its messages could not be sent: {error}", hint="try it again") from error


def _reopen(run: RunRecord, chosen: Reopened, *, ledger: Ledger, settings: Settings) -> tuple[str, ...]:
    ledger.reopen(run.id, chosen, generation=run.generation)
    try:
        send_rest(run.id, ledger=ledger, settings=settings)
    except BrokerError as error:
        # The record must not promise a run of which no message exists.
        ledger.fail_submission(run.id, Failure(message=str(error), type=type(error).__name__))
        raise
    return tuple(chosen)


def _require_ended(run: RunRecord) -> None:
    if not run.state.is_final:
        raise ResumeError(
            f"run {run.id} is {run.state}",
            hint=f"only a run that has ended can be resumed; end it with: mloc cancel {run.id}",
        )


def _downstream(stages: Sequence[StageRecord], first: str) -> set[str]:
    """A stage and all that depends on it, directly or not. Raises ResumeError for a name that there is not."""
    below: dict[str, list[str]] = {stage.name: [] for stage in stages}
    if first not in below:
        raise ResumeError(f"there is no stage {first!r}; the run has {', '.join(below)}")
    for stage in stages:
        for name in stage.depends_on:
            below[name].append(stage.name)
    found, waiting = {first}, [first]
    while waiting:
        new = [name for name in below[waiting.pop()] if name not in found]
        found.update(new)
        waiting += new
    return found


def _planned(stage: StageRecord) -> PlannedStage:
    return PlannedStage(
        name=stage.name,
        task_type=stage.task_type,
        depends_on=stage.depends_on,
        queue=stage.queue,
        priority=stage.priority,
        shards=None if stage.scattered else 1,
        timeout=None,
    )
