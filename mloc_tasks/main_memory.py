"""Main memory that this process may have: the machine's, less what its control groups (a container, a pod) forbid."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

GROUPS = Path("/proc/self/cgroup")
ROOT = Path("/sys/fs/cgroup")
# The controller's name in GROUPS -> where its tree is mounted, and the files with a group's limit and its use.
_VERSIONS = {
    "": ("", "memory.max", "memory.current"),
    "memory": ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
}


@dataclass(frozen=True, slots=True)
class MainMemory:
    """Sizes in bytes; `free` is what can be had now."""

    total: int
    free: int


@dataclass(frozen=True, slots=True)
class Limit:
    """What a control group may have, and what it has, cached files included; in bytes."""

    most: int
    used: int


def main_memory() -> MainMemory:
    """This process's, now."""
    import psutil

    machine = psutil.virtual_memory()
    return within(MainMemory(machine.total, machine.available), limits())


def within(machine: MainMemory, limits: Iterable[Limit]) -> MainMemory:
    """What limits leave of a machine's memory. One above all that the machine has is none."""
    real = [each for each in limits if each.most < machine.total]
    return MainMemory(
        total=min([machine.total, *(each.most for each in real)]),
        free=max(min([machine.free, *(each.most - each.used for each in real)]), 0),
    )


def limits(groups: Path = GROUPS, root: Path = ROOT) -> Iterator[Limit]:
    """Those of this process's group and of the ones around it; version 2 and version 1.

    A container may see its group as the root of the tree, whatever path `groups` has for it.
    """
    for line in _text(groups).splitlines():
        _, controllers, path = line.split(":", 2)
        for name in controllers.split(","):
            if name in _VERSIONS:
                mount, most, used = _VERSIONS[name]
                group = PurePosixPath(*(part for part in path.split("/") if part not in ("", "..")))
                for each in (group, *group.parents):
                    folder = root / mount / each
                    if (limit := _number(folder / most)) is not None:
                        yield Limit(limit, _number(folder / used) or 0)


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdigit() else None  # "max" is none


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""
