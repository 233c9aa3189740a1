"""Memory that a process may have, by what the kernel says of its control groups."""

from __future__ import annotations

from pathlib import Path

import pytest

from mloc_tasks.main_memory import Limit, MainMemory, limits, main_memory, within

GIB = 1 << 30
HOST = MainMemory(total=64 * GIB, free=60 * GIB)
UNLIMITED = 9223372036854771712  # as version 1 writes it


def kernel(folder: Path, groups: str, files: dict[str, object]) -> list[Limit]:
    """The limits that such files say."""
    (folder / "groups").write_text(groups)
    for name, value in files.items():
        (folder / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "tree" / name).write_text(f"{value}\n")
    return list(limits(folder / "groups", folder / "tree"))


def test_a_pod_s_memory_is_its_limit_and_not_the_machine_s(tmp_path: Path) -> None:
    found = kernel(tmp_path, "0::/\n", {"memory.max": 8 * GIB, "memory.current": 3 * GIB})
    assert within(HOST, found) == MainMemory(total=8 * GIB, free=5 * GIB)


def test_version_1_counts_too(tmp_path: Path) -> None:
    groups = "5:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n0::/docker/abc\n"
    files = {"memory/memory.limit_in_bytes": 8 * GIB, "memory/memory.usage_in_bytes": 3 * GIB}
    found = kernel(tmp_path, groups, files)  # the container sees its group as the root
    assert within(HOST, found) == MainMemory(total=8 * GIB, free=5 * GIB)


def test_the_tightest_of_the_groups_around_a_process_counts(tmp_path: Path) -> None:
    files = {
        "system.slice/memory.max": 32 * GIB,
        "system.slice/memory.current": 30 * GIB,
        "system.slice/worker.service/memory.max": 8 * GIB,
        "system.slice/worker.service/memory.current": 1 * GIB,
        "other.slice/memory.max": 1,
    }
    found = kernel(tmp_path, "0::/system.slice/worker.service\n", files)
    assert within(HOST, found) == MainMemory(total=8 * GIB, free=2 * GIB)


@pytest.mark.parametrize("limit", ["max", UNLIMITED, 64 * GIB])
def test_a_limit_that_is_none_leaves_the_machine_s(tmp_path: Path, limit: object) -> None:
    files = {"memory.max": limit, "memory.current": 63 * GIB}
    assert within(HOST, kernel(tmp_path, "0::/\n", files)) == HOST


def test_where_the_kernel_says_nothing_it_is_the_machine_s(tmp_path: Path) -> None:
    assert within(HOST, limits(tmp_path / "groups", tmp_path)) == HOST


def test_use_above_the_limit_leaves_nothing() -> None:
    assert within(HOST, [Limit(GIB, 2 * GIB)]).free == 0


def test_this_process_has_some() -> None:
    found = main_memory()
    assert 0 < found.free <= found.total
