"""Plan -> Celery canvas: a chain is what runs in sequence, a chord what runs side by side; messages carry ids only."""

from __future__ import annotations

from collections.abc import Sequence

from celery import Celery, Signature, chain, chord

from mloc_tasks import signatures
from mloc_tasks.executors.registry import is_light
from scheduler.parts import Leaf, Parallel, Part, Series
from scheduler.plan import Plan, PlannedStage


def build_canvas(app: Celery, run_id: str, plan: Plan) -> Signature:
    """The whole run as one signature that ends in `mloc.finish`; `apply_async()` starts it."""
    return _Builder(app, run_id, plan).whole()


class _Builder:
    def __init__(self, app: Celery, run_id: str, plan: Plan) -> None:
        self._app = app
        self._run_id = run_id
        self._plan = plan

    def whole(self) -> Signature:
        last = self._plan.stage(self._plan.result_stage)
        finish = signatures.finish(self._app, self._run_id, queue=last.queue)
        return _chained(self._steps(self._plan.root, then=finish))

    def _steps(self, part: Part, *, then: Signature | None = None) -> list[Signature]:
        """The signatures that run `part`, and `then` after it, one after the other."""
        parts = part.parts if isinstance(part, Series) else (part,)
        steps: list[Signature] = []
        bodies: list[Part | Signature] = [*parts, *([then] if then is not None else [])]
        while bodies:
            first = bodies.pop(0)
            if isinstance(first, Parallel):
                # What follows is the chord's body; where that is itself parallel, or nothing, a join stands in for it.
                body = bodies.pop(0) if bodies and not isinstance(bodies[0], Parallel) else self._join(first)
                header = [_chained(self._steps(branch)) for branch in first.parts]
                steps.append(chord(header, self._leaf(body) if isinstance(body, Leaf) else body, app=self._app))
            else:
                steps.append(self._leaf(first) if isinstance(first, Leaf) else first)
        return steps

    def _leaf(self, leaf: Leaf) -> Signature:
        stage = self._plan.stage(leaf.stage)
        if stage.scattered:
            return signatures.scatter(self._app, self._run_id, stage.name, queue=stage.queue, priority=stage.priority)
        return signatures.shard(
            self._app,
            self._run_id,
            stage.name,
            0,
            of=1,
            queue=stage.queue,
            priority=stage.priority,
            light=is_light(stage.task_type),
        )

    def _join(self, part: Part) -> Signature:
        return signatures.join(self._app, self._run_id, queue=self._a_stage(part).queue)

    def _a_stage(self, part: Part) -> PlannedStage:
        return self._plan.stage(part.stage) if isinstance(part, Leaf) else self._a_stage(part.parts[-1])


def _chained(steps: Sequence[Signature]) -> Signature:
    return steps[0] if len(steps) == 1 else chain(*steps)
