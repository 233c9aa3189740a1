"""What is wrong with a spec, and where."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from mloc_tasks.errors import MlocError


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding in a document.

    Attributes:
        path: where it stands, in the author's own spelling: `spec.resources.hardware.memory`; "" is the whole document.
        message: what is wrong.
        line, column: counted from 1; None when the document did not come from YAML text.
        suggestion: what to write instead, "" when nothing better is known.
        severity: an "error" refuses the document, a "warning" does not.
    """

    path: str
    message: str
    line: int | None = None
    column: int | None = None
    suggestion: str = ""
    severity: Literal["error", "warning"] = "error"

    def __str__(self) -> str:
        place = f"line {self.line}, column {self.column}: " if self.line is not None else ""
        path = f"{self.path}: " if self.path else ""
        hint = f"; {self.suggestion}" if self.suggestion else ""
        return f"{place}{path}{self.message}{hint}"


class SpecError(MlocError):
    """A document that is not a valid spec. `problems` holds every error found, in the order of the document."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(problems, key=lambda problem: (problem.line or 0, problem.column or 0)))
        count = len(self.problems)
        title = "the spec has 1 problem" if count == 1 else f"the spec has {count} problems"
        super().__init__("\n".join([f"{title}:", *(f"  {problem}" for problem in self.problems)]))

    def __reduce__(self) -> tuple[type[SpecError], tuple[tuple[Problem, ...]]]:
        return type(self), (self.problems,)


def dotted(path: Iterable[str | int]) -> str:
    """`("spec", "stages", 2, "name")` -> `spec.stages[2].name`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{part}" if text else part
    return text
