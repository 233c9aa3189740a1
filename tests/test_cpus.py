"""Shares of the CPUs: whole cores, near to each other and to their memory, on any machine's layout."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from mloc_tasks.cpus import Cpu, memory_nodes, parse_list, share, share_of_cpus, topology


def machine(*, nodes: int, cores: int, smt: bool) -> tuple[Cpu, ...]:
    """`cores` on each node; a core's second CPU has a number after all the first ones, as x86 usually counts."""
    count = nodes * cores
    first = [Cpu(node=core // cores, core=core, number=core) for core in range(count)]
    second = [Cpu(node=each.node, core=each.core, number=each.number + count) for each in first]
    return tuple([*first, *second] if smt else first)


def shares(cpus: Sequence[Cpu], size: int) -> list[tuple[int, ...]]:
    return [share_of_cpus(cpus, index, size) for index in range(size)]


def test_two_children_of_a_machine_with_smt_have_no_core_in_common() -> None:
    first, second = shares(machine(nodes=2, cores=16, smt=True), 2)
    assert first == (*range(16), *range(32, 48))
    assert second == (*range(16, 32), *range(48, 64))


def test_children_of_one_node_have_their_own_cores() -> None:
    assert shares(machine(nodes=1, cores=4, smt=True), 2) == [(0, 1, 4, 5), (2, 3, 6, 7)]
    assert shares(machine(nodes=1, cores=2, smt=False), 2) == [(0,), (1,)]


def test_interleaved_nodes_are_told_apart() -> None:
    cpus = [Cpu(node=number % 2, core=number, number=number) for number in range(8)]
    assert shares(cpus, 2) == [(0, 2, 4, 6), (1, 3, 5, 7)]


def test_all_cpus_are_given_away_once_however_many_children_there_are() -> None:
    cpus = machine(nodes=2, cores=3, smt=True)
    for size in range(1, 13):
        assert sorted(number for each in shares(cpus, size) for number in each) == list(range(12))


def test_only_children_beyond_the_cores_share_one_s_cpus() -> None:
    cpus = machine(nodes=1, cores=1, smt=True)
    assert shares(cpus, 2) == [(0,), (1,)]
    assert shares(cpus, 3) == [(0,), (1,), (0,)]


@pytest.mark.parametrize(
    ("everything", "size", "parts"),
    [
        ("", 2, ["", ""]),
        ("0", 1, ["0"]),
        ("0123", 2, ["01", "23"]),
        ("01234567", 8, list("01234567")),
        ("01234", 2, ["01", "234"]),
        ("01", 3, ["0", "1", "0"]),
    ],
)
def test_shares_are_contiguous_and_nearly_equal(everything: str, size: int, parts: list[str]) -> None:
    assert [share(everything, index, size) for index in range(size)] == [tuple(each) for each in parts]


def lay_out(root: Path, cpus: Sequence[Cpu]) -> None:
    """What the kernel shows of them."""
    for cpu in cpus:
        folder = root / "cpu" / f"cpu{cpu.number}"
        (folder / "topology").mkdir(parents=True)
        siblings = sorted(each.number for each in cpus if (each.node, each.core) == (cpu.node, cpu.core))
        (folder / "topology" / "thread_siblings_list").write_text(",".join(map(str, siblings)) + "\n")
        (folder / f"node{cpu.node}").mkdir()


def test_cores_and_nodes_are_as_the_kernel_shows_them(tmp_path: Path) -> None:
    cpus = machine(nodes=2, cores=2, smt=True)
    lay_out(tmp_path, cpus)
    assert topology(range(8), root=tmp_path) == tuple(sorted(cpus))
    assert topology([6, 3], root=tmp_path) == (Cpu(1, 2, 6), Cpu(1, 3, 3)), "a part, as a container has it"


def test_cpus_that_are_offline_are_missed_nowhere(tmp_path: Path) -> None:
    online = [cpu for cpu in machine(nodes=1, cores=4, smt=True) if cpu.number not in (1, 7)]
    lay_out(tmp_path, online)
    found = topology([each.number for each in online], root=tmp_path)
    assert shares(found, 2) == [(0, 2, 4, 6), (3, 5)]


def test_without_the_kernel_s_word_each_cpu_is_a_core(tmp_path: Path) -> None:
    assert topology([2, 0, 1], root=tmp_path) == (Cpu(0, 0, 0), Cpu(0, 1, 1), Cpu(0, 2, 2))


def test_memory_is_of_the_nodes_that_a_process_may_use(tmp_path: Path) -> None:
    status = tmp_path / "status"
    status.write_text("Name:\tpython\nMems_allowed:\t00000000,0000000b\nMems_allowed_list:\t0-1,3\n")
    assert memory_nodes(status) == (0, 1, 3)
    assert memory_nodes(tmp_path / "missing") == ()
    assert parse_list("") == ()
