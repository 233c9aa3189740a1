"""Whether this machine has what the stages ask for; asked before `mloc run` would wait for ever."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mloc_tasks.errors import PlanError

if TYPE_CHECKING:
    from mloc_tasks.settings import Settings
    from mloc_tasks.spec import Workflow


def require_fit(workflow: Workflow, settings: Settings) -> None:
    """Raise PlanError listing every stage that this machine cannot run."""
    from mloc_tasks.capabilities import Requirement, shortfalls
    from mloc_tasks.worker.hardware import machine_capabilities

    machine = machine_capabilities(settings.worker_tags)
    lines = []
    for stage in workflow.stages:
        spec = stage.spec
        need = Requirement.of(spec.task_type, spec.resources, enforce_cpu=spec.enforce_cpu)
        lacking = shortfalls(need, machine)
        if lacking:
            lines.append(f"  stage {stage.name}: {'; '.join(lacking)}")
    if lines:
        raise PlanError(
            "this machine falls short of what the spec asks for:\n" + "\n".join(lines),
            hint="lower spec.resources, submit it to a fleet that has such workers (mloc submit), or set "
            "MLOC_ALLOW_UNFIT=1 to try it here all the same",
        )
