"""This machine's CPUs: which of them are one core, and which memory is near; read from /sys, and shared out by that."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

SYS = Path("/sys/devices/system")
STATUS = Path("/proc/self/status")


@dataclass(frozen=True, slots=True, order=True)
class Cpu:
    """A logical CPU: its NUMA node, its core, and its own number. In this order CPUs that share something are near."""

    node: int
    core: int  # the lowest number among the core's CPUs
    number: int


def usable_cpus() -> tuple[int, ...]:
    """The CPUs that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def topology(numbers: Iterable[int], *, root: Path = SYS) -> tuple[Cpu, ...]:
    """Where these CPUs are, by node and core. What is not told (no /sys) is a core of its own, on node 0."""
    found = []
    for number in numbers:
        folder = root / "cpu" / f"cpu{number}"
        siblings = parse_list(_text(folder / "topology" / "thread_siblings_list"))
        nodes = [int(each.name[4:]) for each in folder.glob("node[0-9]*")]
        found.append(Cpu(node=min(nodes, default=0), core=min(siblings, default=number), number=number))
    return tuple(sorted(found))


def share_of_cpus(cpus: Sequence[Cpu], index: int, size: int) -> tuple[int, ...]:
    """Part `index` of `size`, as numbers: whole cores that lie next to each other, as far as there are enough."""
    cores: dict[tuple[int, int], list[Cpu]] = defaultdict(list)
    for cpu in sorted(cpus):
        cores[cpu.node, cpu.core].append(cpu)
    whole = list(cores.values()) if len(cores) >= size else [[cpu] for cpu in sorted(cpus)]
    return tuple(sorted(cpu.number for core in share(whole, index, size) for cpu in core))


def share(everything: Sequence[T], index: int, size: int) -> tuple[T, ...]:
    """Part `index` of `size` contiguous, nearly equal ones; where there are too few, they are shared in turn."""
    if not everything:
        return ()
    if len(everything) < size:
        return (everything[index % len(everything)],)
    return tuple(everything[index * len(everything) // size : (index + 1) * len(everything) // size])


def memory_nodes(status: Path = STATUS) -> tuple[int, ...]:
    """The NUMA nodes whose memory this process may use; empty where nothing says so."""
    lines = (line.partition(":") for line in _text(status).splitlines())
    return parse_list(next((value for name, _, value in lines if name == "Mems_allowed_list"), ""))


def parse_list(text: str) -> tuple[int, ...]:
    """The numbers of a list as the kernel writes it, "0-2,7"."""
    numbers: list[int] = []
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        numbers.extend(range(int(first), int(last or first) + 1))
    return tuple(numbers)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""
