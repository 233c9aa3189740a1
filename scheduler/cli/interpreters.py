"""The families of executors, and the Python that runs each: this one, or what MLOC_PYTHON_<FAMILY> names."""

from __future__ import annotations

import platform
import sys
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mloc_tasks.errors import ConfigError
from mloc_tasks.host.examination import LIBRARIES, Examination, examine, installed
from mloc_tasks.host.interpreters import interpreter, variable

if TYPE_CHECKING:
    from mloc_tasks.executors import Executor


@dataclass(frozen=True, kw_only=True, slots=True)
class Family:
    """Executors that share an interpreter; `missing` is the library that they need, `advice` is what to do."""

    name: str
    python: str
    versions: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    missing: str = ""
    advice: str = ""


def families() -> Iterator[Family]:
    """All families by name. Other interpreters than this one are examined at once, within a minute."""
    executors, broken = _executors()
    yield from broken
    pythons: dict[str, str] = {}
    targets: dict[str, set[str]] = defaultdict(set)
    for name, classes in executors.items():
        try:
            pythons[name] = python = interpreter(classes[0])
        except ConfigError as error:
            yield Family(name=name, python="no Python", errors=(str(error),), advice=error.hint)
            continue
        targets[python].update(f"{each.__module__}:{each.__qualname__}" for each in classes)
    others = [python for python in targets if python != sys.executable]
    with ThreadPoolExecutor(max(len(others), 1)) as threads:
        found = dict(zip(others, threads.map(lambda python: examine(python, targets[python]), others), strict=True))
    own = Examination(python=platform.python_version(), versions=installed(), errors={})
    for name, python in pythons.items():
        yield _family(name, python, found.get(python, own))


def _family(name: str, python: str, found: Examination) -> Family:
    where = f"this Python {found.python}" if python == sys.executable else f"{python} ({found.python or '?'})"
    needs = set(LIBRARIES.get(name, ()))
    missing = name if needs and not found.errors and not needs & found.versions.keys() else ""
    advice = f"repair that environment, or name another in {variable(name)}" if found.errors else ""
    return Family(
        name=name,
        python=where,
        missing=missing,
        versions=tuple(f"{library} {number}" for library, number in found.versions.items()),
        errors=tuple(f"{module}: {error}" for module, error in found.errors.items()),
        advice=f"install it there, or name a Python that has it in {variable(name)}" if missing else advice,
    )


def _executors() -> tuple[dict[str, list[type[Executor]]], list[Family]]:
    """The executors that run in hosts, by family; and those that cannot be imported here, which no worker could run."""
    from mloc_tasks.executors.registry import VLLM, VLLM_EMBEDDING, registered

    known = registered()
    by_vllm = {"inference": VLLM, "embedding": VLLM_EMBEDDING}
    others = [replace(known[name], target=target) for name, target in by_vllm.items()]
    found: dict[str, list[type[Executor]]] = defaultdict(list)
    broken = []
    for registration in [*known.values(), *others]:
        try:
            executor = registration.load()
        except ConfigError as error:
            name = registration.task_type
            broken.append(Family(name=name, python="this Python", errors=(str(error),), advice=error.hint))
            continue
        if not executor.light:
            found[executor.family or executor.name].append(executor)
    return dict(sorted(found.items())), broken
