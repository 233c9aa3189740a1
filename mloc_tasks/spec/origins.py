"""Where every value of a canonical document came from in the author's text."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal, NamedTuple

from mloc_tasks.spec.problems import Problem, dotted
from mloc_tasks.spec.source import Mark, Source

Step = str | int

MOST_PROBLEMS = 200
"""More are not noted: nobody reads them."""


class Origin(NamedTuple):
    """The author's path to a value, and where it (in a mapping: its key) stands."""

    path: tuple[Step, ...]
    mark: Mark | None

    @property
    def text(self) -> str | None:
        """A plain scalar as it was written, None for everything else."""
        return self.mark.text if self.mark else None


class Origins:
    """Origins of the entries of canonical mappings and lists, and the problems found in them.

    Canonical containers are new ones, built by renaming keys and merging defaults; each entry remembers its origin.
    Values inside of them that were taken over as they stand are found through the source's own marks.
    """

    def __init__(self, source: Source) -> None:
        self._marks = source.marks
        self._entries: dict[int, dict[Step, Origin]] = {}
        # Holding the containers keeps their ids from being used again.
        self._kept: list[Any] = []
        self.top = Origin((), source.start)
        self.problems: list[Problem] = []
        self._seen: set[tuple[str, str]] = set()
        self._refused_paths: set[str] = set()

    def inside(self, container: Any, key: Step, outer: Origin) -> Origin:
        """The origin of `container[key]`, where `outer` is the container's own origin."""
        known = self._entries.get(id(container), {}).get(key)
        if known is not None:
            return known
        marks = self._marks.get(id(container))
        return Origin((*outer.path, key), marks[key] if marks and key in marks else outer.mark)

    def record(self, container: Any, entries: dict[Step, Origin]) -> None:
        """Remember where the entries of a new canonical container came from."""
        self._entries[id(container)] = entries
        self._kept.append(container)

    def of(self, document: Any, location: Iterable[Step], top: Origin) -> tuple[Origin, Any]:
        """The origin and value of the deepest part of `location` that exists; steps that name no entry are passed."""
        origin, value = top, document
        for step in location:
            if isinstance(value, list):
                exists = isinstance(step, int) and 0 <= step < len(value)
            else:
                exists = isinstance(value, dict) and step in value
            if exists:
                origin, value = self.inside(value, step, origin), value[step]
        return origin, value

    def report(
        self,
        origin: Origin,
        message: str,
        suggestion: str | Callable[[], str] = "",
        *,
        severity: Literal["error", "warning"] = "error",
    ) -> None:
        """Note a problem once. A suggestion that takes a search is given as a function, called when it is needed."""
        path = dotted(origin.path)
        if (path, message) in self._seen or len(self._seen) >= MOST_PROBLEMS:
            return
        advice = suggestion if isinstance(suggestion, str) else suggestion()
        line, column = (origin.mark.line, origin.mark.column) if origin.mark else (None, None)
        self._seen.add((path, message))
        if severity == "error":
            self._refused_paths.add(path)
        self.problems.append(Problem(path, message, line, column, advice, severity))

    def refused(self, origin: Origin) -> bool:
        """Whether an error was noted at exactly this place."""
        return dotted(origin.path) in self._refused_paths

    def errors(self) -> list[Problem]:
        """The problems that refuse the document."""
        return [problem for problem in self.problems if problem.severity == "error"]

    def warnings(self) -> list[Problem]:
        """The problems that do not."""
        return [problem for problem in self.problems if problem.severity == "warning"]
