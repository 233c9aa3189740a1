"""Requirement -> queue. A pure function of what is declared and of the load as it was seen."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from mloc_tasks.capabilities import Requirement, looseness, shortfalls
from mloc_tasks.errors import RoutingError
from mloc_tasks.queues import Queue


@dataclass(frozen=True, kw_only=True, slots=True)
class Load:
    """The live state of the queues: shards that can run at once, messages that wait, and by stage, those queues whose
    workers hold its model."""

    consumers: Mapping[str, int] = field(default_factory=dict)
    backlog: Mapping[str, int] = field(default_factory=dict)
    warm: Mapping[str, Collection[str]] = field(default_factory=dict)

    def wait(self, queue: str) -> tuple[int, float]:
        """Sorts queues by how soon a message is taken: live ones first, then by backlog per consumer."""
        consumers = self.consumers.get(queue, 0)
        return (0 if consumers else 1, self.backlog.get(queue, 0) / max(consumers, 1))


NO_LOAD = Load()


def route(need: Requirement, queues: Iterable[Queue], *, load: Load = NO_LOAD, stage: str = "") -> Queue:
    """The tightest queue that satisfies `need`; among equals the one of higher priority, then the one that waits least,
    then one whose workers hold the stage's model.

    Raises `RoutingError` that lists for each queue what it lacks.
    """
    queues = tuple(queues)
    fitting = [queue for queue in queues if not shortfalls(need, queue.offers)]
    if not fitting:
        lines = [f"  {queue.name}: {'; '.join(shortfalls(need, queue.offers))}" for queue in queues]
        raise RoutingError(
            f"no queue satisfies stage {stage or need.task_type!r}:\n" + "\n".join(lines),
            hint="change spec.resources, or declare a queue for such workers in the queues file (MLOC_QUEUES_FILE)",
        )
    warm = load.warm.get(stage, ())
    return min(
        fitting,
        key=lambda queue: (
            looseness(need, queue.offers),
            -queue.priority,
            load.wait(queue.name),
            queue.name not in warm,
        ),
    )
