"""What a stage asks for, what a queue or a worker offers, and how the one falls short of the other. Values only."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mloc_tasks.spec.model.resources import Resources

ANY = "any"
EVERY_TASK_TYPE = "*"
GIB = 2**30


@dataclass(frozen=True, kw_only=True, slots=True)
class Gpus:
    """GPUs of one kind: `type` as vendors write it or "any", `memory` in bytes of each, or None for unstated."""

    type: str = ANY
    count: int = 1
    memory: int | None = None

    def __str__(self) -> str:
        memory = f" with {self.memory / GIB:g}Gi each" if self.memory else ""
        return f"{self.count} x {self.type} GPU{memory}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Requirement:
    """What a stage asks for. Unstated numbers are None; `gpus` None means that it needs no GPU."""

    task_type: str
    cpu: float | None = None
    memory: int | None = None
    gpus: Gpus | None = None
    tags: frozenset[str] = frozenset()

    @classmethod
    def of(cls, task_type: str, resources: Resources, *, enforce_cpu: bool = False) -> Requirement:
        """The requirement of a stage; `enforce_cpu` drops its GPU."""
        hardware = resources.hardware
        gpu = hardware.gpu
        gpus = None
        if gpu is not None and gpu.count and not enforce_cpu:
            gpus = Gpus(type=gpu.type.lower(), count=gpu.count, memory=gpu.memory)
        return cls(
            task_type=task_type, cpu=hardware.cpu, memory=hardware.memory, gpus=gpus, tags=frozenset(resources.tags)
        )

    @classmethod
    def of_document(cls, document: Mapping[str, Any]) -> Requirement:
        """The same, of a stage's merged spec with snake_case keys."""
        from mloc_tasks.spec.model.resources import Resources

        resources = Resources.model_validate(document.get("resources") or {})
        return cls.of(str(document.get("task_type")), resources, enforce_cpu=bool(document.get("enforce_cpu")))


@dataclass(frozen=True, kw_only=True, slots=True)
class Capabilities:
    """What a queue promises, or what a worker's machine has. None means "not limited here"."""

    task_types: frozenset[str] = frozenset({EVERY_TASK_TYPE})
    cpu: float | None = None
    memory: int | None = None
    gpus: Gpus | None = None
    tags: frozenset[str] = frozenset()

    @property
    def takes_every_task_type(self) -> bool:
        return EVERY_TASK_TYPE in self.task_types


def shortfalls(need: Requirement, have: Capabilities) -> tuple[str, ...]:
    """Each requirement that `have` does not meet, as "needs X, has Y"; empty when it serves."""
    found: list[str] = []
    if not have.takes_every_task_type and need.task_type not in have.task_types:
        found.append(f"takes task types {', '.join(sorted(have.task_types))}, not {need.task_type}")
    if need.gpus is not None:
        found.extend(_gpu_shortfalls(need.gpus, have.gpus))
    if need.cpu is not None and have.cpu is not None and need.cpu > have.cpu:
        found.append(f"needs {need.cpu:g} CPUs, has {have.cpu:g}")
    if need.memory is not None and have.memory is not None and need.memory > have.memory:
        found.append(f"needs {need.memory / GIB:.3g}Gi of memory, has {have.memory / GIB:.3g}Gi")
    missing = need.tags - have.tags
    if missing:
        found.append(f"needs tags {', '.join(sorted(missing))}, has {', '.join(sorted(have.tags)) or 'none'}")
    return tuple(found)


def _gpu_shortfalls(need: Gpus, have: Gpus | None) -> list[str]:
    if have is None:
        return [f"needs {need}, has no GPU"]
    found = []
    if need.type != ANY and not _gpu_type_matches(need.type, have.type):
        found.append(f"needs a GPU of type {need.type}, has {have.type}")
    if need.count > have.count:
        found.append(f"needs {need.count} GPUs, has {have.count}")
    if need.memory is not None and have.memory is not None and need.memory > have.memory:
        found.append(f"needs {need.memory / GIB:.3g}Gi of GPU memory, has {have.memory / GIB:.3g}Gi")
    return found


def _gpu_type_matches(asked: str, offered: str) -> bool:
    """`a100` is met by `nvidia-a100-80gb`: every word asked for is among the offered ones."""

    def words(name: str) -> set[str]:
        return set(name.lower().replace("_", "-").replace(" ", "-").split("-"))

    return words(asked) <= words(offered)


def looseness(need: Requirement, have: Capabilities) -> tuple[float, ...]:
    """How much more than needed is offered; the smallest is the tightest fit. Scarce things (GPUs) count first."""
    gpus = have.gpus
    return (
        (gpus.count if gpus else 0) - (need.gpus.count if need.gpus else 0),
        1 if gpus and gpus.type != ANY and (need.gpus is None or need.gpus.type == ANY) else 0,
        len(have.tags - need.tags),
        _ceiling(gpus.memory if gpus else 0),
        1 if have.takes_every_task_type else 0,
        _ceiling(have.memory),
        _ceiling(have.cpu),
    )


def _ceiling(value: float | None) -> float:
    return math.inf if value is None else value
