"""Workflow -> Plan: what will run where, as plain data that prints without a broker."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mloc_tasks.capabilities import Requirement
from mloc_tasks.queues import Queue
from mloc_tasks.spec import Stage, Workflow
from scheduler.parts import Part, decompose
from scheduler.routing import NO_LOAD, Load, route


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedStage:
    """A stage with its queue. `shards` is 1, or None where its rows are counted and split at run time."""

    name: str
    task_type: str
    depends_on: tuple[str, ...]
    queue: str
    priority: int
    shards: int | None
    timeout: float | None

    @property
    def scattered(self) -> bool:
        return self.shards is None


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """A run before it is submitted: its stages in topological order, and how they lie in series and in parallel."""

    name: str
    stages: tuple[PlannedStage, ...]
    root: Part
    result_stage: str

    def stage(self, name: str) -> PlannedStage:
        return next(stage for stage in self.stages if stage.name == name)


def make_plan(workflow: Workflow, queues: Iterable[Queue], load: Load = NO_LOAD) -> Plan:
    """Route each stage and take the DAG apart. Raises `RoutingError` for a stage that no queue satisfies."""
    queues = tuple(queues)
    stages = tuple(_plan_stage(stage, queues, load) for stage in workflow.stages)
    dependencies = {stage.name: stage.depends_on for stage in stages}
    # The run's result is that of the last stage of the document that nothing depends on.
    used = {name for above in dependencies.values() for name in above}
    result_stage = [stage.name for stage in stages if stage.name not in used][-1]
    return Plan(name=workflow.metadata.name, stages=stages, root=decompose(dependencies), result_stage=result_stage)


def _plan_stage(stage: Stage, queues: tuple[Queue, ...], load: Load) -> PlannedStage:
    spec = stage.spec
    need = Requirement.of(spec.task_type, spec.resources, enforce_cpu=spec.enforce_cpu)
    return PlannedStage(
        name=stage.name,
        task_type=spec.task_type,
        depends_on=stage.depends_on,
        queue=route(need, queues, load=load, stage=stage.name).name,
        priority=spec.priority,
        shards=None if spec.parallel.enabled else 1,
        timeout=spec.timeout,
    )
