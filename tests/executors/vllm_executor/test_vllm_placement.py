"""Where a CPU engine's threads and memory go: to the share of the machine that its process has."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import pytest

from mloc_tasks.cpus import Cpu, share_of_cpus
from mloc_tasks.executors.vllm.arguments import cpu_ranks
from mloc_tasks.executors.vllm.environment import cpu_placement

TWO_NODES = [Cpu(node=core // 16, core=core, number=number) for number in range(64) for core in (number % 32,)]
"""Two nodes of 16 cores with two CPUs each, numbered as x86 usually does: 0-31 are the first of each core."""
Bound = Callable[[Sequence[int], Sequence[int]], list[int]]


def of(*numbers: int) -> list[Cpu]:
    return [TWO_NODES[number] for number in numbers]


def placed(
    cpus: Sequence[Cpu], memory: Sequence[int] = (0, 1), *, ranks: int = 1, **environment: str
) -> dict[str, str]:
    return cpu_placement(cpus, memory=memory, ranks=ranks, environment=environment)


def test_a_process_with_all_cpus_is_left_to_vllm() -> None:
    assert placed(TWO_NODES) == {}
    assert placed(TWO_NODES, ranks=2) == {}
    assert placed(of(0, 1), memory=(0,)) == {}


def test_a_share_on_another_node_has_its_threads_and_memory_there() -> None:
    assert placed(of(*share_of_cpus(TWO_NODES, 0, 2))) == {}
    assert placed(of(*share_of_cpus(TWO_NODES, 1, 2))) == {"CPU_VISIBLE_MEMORY_NODES": "1"}


def test_a_share_of_two_nodes_is_placed_where_most_of_it_is() -> None:
    assert placed(of(14, 15, 16, 17, 18)) == {"CPU_VISIBLE_MEMORY_NODES": "1"}
    assert placed(of(0, 1, 2, 16)) == {}
    assert placed(of(14, 15, 47, 16, 17)) == {}, "of equal ones the first; a core's CPUs count once"


def test_a_container_s_nodes_count() -> None:
    assert placed(of(16, 17), memory=(1,)) == {}
    assert placed(of(16, 17), memory=(0, 1)) == {"CPU_VISIBLE_MEMORY_NODES": "1"}
    far = placed(of(16, 17), memory=(0,))
    assert far == {"VLLM_CPU_OMP_THREADS_BIND": "nobind"}, "vLLM would bind no thread; its process's bounds hold"


def test_ranks_stay_within_the_share() -> None:
    assert placed(of(16, 17), ranks=2) == {"CPU_VISIBLE_MEMORY_NODES": "1"}, "vLLM then says that it has too few nodes"
    assert cpu_ranks({"tensor_parallel_size": 2, "pipeline_parallel_size": 2}) == 4
    assert cpu_ranks({"tensor_parallel_size": "many"}) == 1


@pytest.mark.parametrize("name", ["CPU_VISIBLE_MEMORY_NODES", "VLLM_CPU_OMP_THREADS_BIND", "VLLM_CPU_SIM_MULTI_NUMA"])
def test_what_the_operator_set_stays(name: str) -> None:
    assert placed(of(16, 17), **{name: "0"}) == {}


def test_where_nothing_is_known_vllm_decides() -> None:
    assert placed(of(16, 17), memory=()) == {}


@pytest.fixture
def bound(monkeypatch: pytest.MonkeyPatch) -> Bound:
    """The CPUs that the installed vLLM binds its threads to, on two nodes, for a process of these CPUs and memory."""
    pytest.importorskip("vllm.version", reason="vLLM is not installed")
    from types import SimpleNamespace

    from vllm.utils import cpu_resource_utils as resources
    from vllm.utils.ompmultiprocessing import OMPProcessManager

    layout = [resources.LogicalCPUInfo(each.number, each.core, each.node) for each in TWO_NODES]
    parallel = SimpleNamespace(local_world_size=1, data_parallel_rank_local=None, _api_process_count=1)
    config = SimpleNamespace(parallel_config=parallel, kv_transfer_config=None)

    def bind(numbers: Sequence[int], memory: Sequence[int]) -> list[int]:
        monkeypatch.setattr(resources, "_get_cpu_list", lambda: layout)
        monkeypatch.setattr(resources, "get_memory_affinity", lambda: list(memory))
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(numbers))
        for name in ("CPU_VISIBLE_MEMORY_NODES", "VLLM_CPU_OMP_THREADS_BIND"):
            monkeypatch.delenv(name, raising=False)
        for name, value in placed(of(*numbers), memory).items():
            monkeypatch.setenv(name, value)
        manager = OMPProcessManager(config)
        return [] if manager.skip_setup else manager.cpu_lists[0]

    return bind


@pytest.mark.parametrize("size", [2, 3, 4])
def test_the_installed_vllm_binds_no_two_children_to_one_core(bound: Bound, size: int) -> None:
    cores = [
        {TWO_NODES[number].core for number in bound(share_of_cpus(TWO_NODES, index, size), (0, 1))}
        for index in range(size)
    ]
    assert all(len(each) >= 32 // size // 2 for each in cores)
    assert len(set().union(*cores)) == sum(map(len, cores))


def test_the_installed_vllm_takes_the_process_s_bounds_far_from_memory(bound: Bound) -> None:
    assert bound((16, 17), (0,)) == []
