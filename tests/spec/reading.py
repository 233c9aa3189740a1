"""Documents for tests, and what loading them says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mloc_tasks.spec import Problem, SpecError, Workflow, load_workflow

DOCUMENTS = sorted((Path(__file__).parent / "documents").glob("*.yaml"))

HEAD = "apiVersion: mloc/v1\nkind: Workflow\nmetadata: {name: test}\n"
MODEL = "  model: {source: {identifier: some/model}}\n"


def load(spec: str, **options: Any) -> Workflow:
    """Load a document whose `spec` is these lines, each indented by two spaces."""
    return load_workflow(f"{HEAD}spec:\n{spec}", **options)


def problems_of(document: Any, **options: Any) -> tuple[Problem, ...]:
    """The problems of a whole document; () when it is valid."""
    try:
        load_workflow(document, **options)
    except SpecError as error:
        return error.problems
    return ()


def problems(spec: str, **options: Any) -> tuple[Problem, ...]:
    """The problems of a document whose `spec` is these lines."""
    return problems_of(f"{HEAD}spec:\n{spec}", **options)


def only(found: tuple[Problem, ...]) -> Problem:
    """The one problem there is."""
    assert len(found) == 1, "\n".join(map(str, found))
    return found[0]


def places(value: Any, location: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every location inside a JSON-like value."""
    yield location
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, entry in entries:
        yield from places(entry, (*location, key))
