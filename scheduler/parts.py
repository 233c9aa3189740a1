"""A DAG taken apart into series and parallel parts, so that a branch waits for nothing it does not depend on.

Two stages are comparable when one depends on the other, directly or not. A set of stages falls apart in parallel where
the comparability graph is disconnected, in series where its complement is; doing so recursively takes apart exactly the
series-parallel (N-free) orders [Valdes, Tarjan, Lawler: The recognition of series parallel digraphs, 1982]. What
resists holds an N, and gets a barrier.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from mloc_tasks.errors import PlanError


@dataclass(frozen=True, slots=True)
class Leaf:
    """One stage."""

    stage: str


@dataclass(frozen=True, slots=True)
class Series:
    """Parts that run one after the other; never directly inside another Series."""

    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Parallel:
    """Parts that run side by side; never directly inside another Parallel."""

    parts: tuple[Part, ...]


Part = Leaf | Series | Parallel


def decompose(dependencies: Mapping[str, Iterable[str]]) -> Part:
    """The series-parallel tree of a DAG given as stage -> the stages it depends on.

    Raises PlanError for a cycle or an unknown stage.
    """
    order = topological_order(dependencies)
    return _Order(order, dependencies).part(frozenset(range(len(order))))


def topological_order(dependencies: Mapping[str, Iterable[str]]) -> list[str]:
    """The stages, each after all it depends on, otherwise in the order given. Raises PlanError."""
    waiting = {stage: set(above) for stage, above in dependencies.items()}
    unknown = {name for above in waiting.values() for name in above} - set(waiting)
    if unknown:
        raise PlanError(f"stages depend on {', '.join(sorted(unknown))}, which there is not")
    order: list[str] = []
    while waiting:
        ready = [stage for stage, above in waiting.items() if not above]
        if not ready:
            raise PlanError(f"stages depend on each other in a circle: {', '.join(sorted(waiting))}")
        order.extend(ready)
        for stage in ready:
            del waiting[stage]
        for above in waiting.values():
            above.difference_update(ready)
    return order


class _Order:
    """The transitive order of the stages, as bit sets over their topological numbers."""

    def __init__(self, names: list[str], dependencies: Mapping[str, Iterable[str]]) -> None:
        self._names = names
        number = {name: index for index, name in enumerate(names)}
        self._above = [0] * len(names)
        self._below = [0] * len(names)
        for index, name in enumerate(names):
            for parent in dependencies[name]:
                self._above[index] |= self._above[number[parent]] | 1 << number[parent]
        for index in range(len(names)):
            for other in _bits(self._above[index]):
                self._below[other] |= 1 << index

    def part(self, members: frozenset[int]) -> Part:
        if len(members) == 1:
            return Leaf(self._names[next(iter(members))])
        everything = _mask(members)
        branches = self._components(members, lambda i: (self._above[i] | self._below[i]) & everything)
        if len(branches) > 1:
            return Parallel(tuple(self.part(branch) for branch in branches))
        steps = self._components(members, lambda i: everything & ~(self._above[i] | self._below[i]))
        if len(steps) > 1:
            # Every member of one step is comparable with every member of the others: the steps are totally ordered.
            steps.sort(key=lambda step: len(_in(self._above[next(iter(step))], everything & ~_mask(step))))
            return _series([self.part(step) for step in steps])
        before = self._barrier(members)
        return _series([self.part(before), self.part(members - before)])

    def _components(self, members: frozenset[int], neighbours: Callable[[int], int]) -> list[frozenset[int]]:
        """Connected components, ordered by their first member."""
        left = _mask(members)
        found = []
        while left:
            component = frontier = left & -left
            while frontier:
                reached = 0
                for index in _bits(frontier):
                    reached |= neighbours(index)
                frontier = reached & left & ~component
                component |= frontier
            found.append(frozenset(_bits(component)))
            left &= ~component
        return found

    def _barrier(self, members: frozenset[int]) -> frozenset[int]:
        """The stages to finish before the rest may start, where an N leaves no exact answer.

        Of the closed sets tried, the one that makes the fewest pairs wait needlessly; of those, the latest.
        """
        everything = _mask(members)
        candidates = set()
        for index in members:
            candidates.add(_in(self._above[index] | 1 << index, everything))
            candidates.add(frozenset(members - _in(self._below[index] | 1 << index, everything)))
        depth = self._depths(members)
        for level in set(depth.values()):
            candidates.add(frozenset(index for index in members if depth[index] < level))
        proper = [candidate for candidate in candidates if candidate and candidate != members]

        def needless_waits(before: frozenset[int]) -> int:
            after = _mask(members - before)
            return sum((after & ~self._below[index]).bit_count() for index in before)

        return min(proper, key=lambda before: (needless_waits(before), -len(before), sorted(before)))

    def _depths(self, members: frozenset[int]) -> dict[int, int]:
        depths: dict[int, int] = {}
        for index in sorted(members):
            depths[index] = max((depths[i] + 1 for i in _bits(self._above[index]) if i in members), default=0)
        return depths


def _series(parts: list[Part]) -> Series:
    flat: list[Part] = []
    for part in parts:
        flat.extend(part.parts if isinstance(part, Series) else (part,))
    return Series(tuple(flat))


def _mask(members: Iterable[int]) -> int:
    return sum(1 << index for index in members)


def _bits(mask: int) -> Iterator[int]:
    while mask:
        lowest = mask & -mask
        yield lowest.bit_length() - 1
        mask ^= lowest


def _in(mask: int, everything: int) -> frozenset[int]:
    return frozenset(_bits(mask & everything))
