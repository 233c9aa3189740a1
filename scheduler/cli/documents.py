"""The JSON form of what commands print. Keys are stable; times are seconds since the epoch."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mloc_tasks.ledger import Event, Failure, RunRecord, StageRecord
    from scheduler.plan import Plan
    from scheduler.runs import Artifact, RunStatus


def run_document(run: RunRecord) -> dict[str, Any]:
    """A run, without its stages."""
    return {
        "id": run.id,
        "name": run.name,
        "owner": run.owner,
        "labels": run.labels,
        "kind": run.kind,
        "state": str(run.state),
        "created": run.created,
        "started": run.started,
        "ended": run.ended,
        "error": failure_document(run.error),
        "cancel_requested": run.cancel_requested,
        "warnings": list(run.warnings),
    }


def stage_document(stage: StageRecord) -> dict[str, Any]:
    """A stage of a run."""
    return {
        "name": stage.name,
        "state": str(stage.state),
        "task_type": stage.task_type,
        "queue": stage.queue,
        "depends_on": list(stage.depends_on),
        "shards": stage.shards,
        "shards_done": stage.shards_done,
        "shards_failed": stage.shards_failed,
        "items_done": stage.items_done,
        "items_total": stage.items_total,
        "started": stage.started,
        "ended": stage.ended,
        "error": failure_document(stage.error),
    }


def status_document(status: RunStatus) -> dict[str, Any]:
    """A run with its stages and what it waits for."""
    stages = [{**stage_document(stage), "slo": status.slo(stage)} for stage in status.stages]
    return {**run_document(status.run), "stages": stages, "waiting": list(status.waiting)}


def failure_document(failure: Failure | None) -> dict[str, Any] | None:
    """Why something failed."""
    return None if failure is None else asdict(failure)


def event_document(event: Event) -> dict[str, Any]:
    """Something that happened in a run."""
    return asdict(event)


def artifact_document(artifact: Artifact) -> dict[str, Any]:
    """A file that a stage produced."""
    return asdict(artifact)


def plan_document(plan: Plan) -> dict[str, Any]:
    """What will run where; `shards` is null where they are counted at run time, `timeout` in seconds."""
    stages = [
        {
            "name": stage.name,
            "task_type": stage.task_type,
            "depends_on": list(stage.depends_on),
            "queue": stage.queue,
            "priority": stage.priority,
            "shards": stage.shards,
            "timeout": stage.timeout,
        }
        for stage in plan.stages
    ]
    return {"name": plan.name, "result_stage": plan.result_stage, "stages": stages}
