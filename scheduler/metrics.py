"""What the stages of a run measured, step by step: from their files, and from the run's events while they go on."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from mloc_tasks.errors import ArtifactNotFoundError
from mloc_tasks.executors.training.metrics import METRICS_FILE
from mloc_tasks.executors.training.panels import Steps, read_steps

if TYPE_CHECKING:
    from mloc_tasks.ledger import Event
    from scheduler.runs import Run


def metrics_of(run: Run, stages: Collection[str]) -> dict[str, Steps]:
    """The metrics of those stages that have any, in the order of `stages`.

    Of a finished stage all steps; of another those that the run's events still hold, which are bounded.
    """
    stored = {stage.name for stage in run.status().stages if stage.result is not None}
    found = {stage: _stored(run, stage) for stage in stages if stage in stored}
    if any(not found.get(stage) for stage in stages):
        reported = steps_in_events(run.events())
        found |= {stage: reported[stage] for stage in stages if not found.get(stage) and stage in reported}
    return {stage: found[stage] for stage in stages if found.get(stage)}


def _stored(run: Run, stage: str) -> Steps:
    try:
        with run.open(f"{stage}/{METRICS_FILE}") as lines:
            return read_steps(lines)
    except ArtifactNotFoundError:
        return {}


def steps_in_events(events: Iterable[Event]) -> dict[str, dict[int, dict[str, float | None]]]:
    """The steps that `metrics` events report, by stage.

    An attempt that goes on from a checkpoint repeats the steps since then: what an earlier one said of them is dropped.
    """
    found: dict[str, dict[int, dict[str, float | None]]] = {}
    attempts: dict[str, int] = {}
    for event in events:
        if event.kind != "metrics":
            continue
        values = dict(event.data)
        step = int(values.pop("step"))
        steps = found.setdefault(event.stage, {})
        if event.attempt > attempts.get(event.stage, 0):
            attempts[event.stage] = event.attempt
            for later in [each for each in steps if each >= step]:
                del steps[later]
        if event.attempt == attempts[event.stage]:
            steps.setdefault(step, {}).update(values)
    return found
