"""Which GPUs and CPUs of the machine are this pool child's: each of a worker's N children owns an Nth of them.

Nothing here initialises CUDA: the processes of a worker must stay forkable, and CUDA belongs to the hosts.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mloc_tasks.cpus import share, share_of_cpus, topology, usable_cpus
from mloc_tasks.gpus import named_gpus
from mloc_tasks.worker.hardware import probe

POOL_SIZE = "MLOC_POOL_SIZE"  # in the environment of a worker that has a pool of processes: how many


@dataclass(frozen=True, slots=True)
class Devices:
    """GPUs as CUDA_VISIBLE_DEVICES names them, and the numbers of the CPUs."""

    gpus: tuple[str, ...]
    cpus: tuple[int, ...]


def my_devices() -> Devices:
    """This process's share of the machine."""
    index, size = pool_place()
    return Devices(gpus=share(visible_gpus(), index, size), cpus=cpu_share(usable_cpus(), index, size))


def cpu_share(cpus: tuple[int, ...], index: int, size: int) -> tuple[int, ...]:
    """Part `index` of `size` of these CPUs: cores of one NUMA node, as far as that can be."""
    return cpus if size == 1 else share_of_cpus(topology(cpus), index, size)


def pool_place() -> tuple[int, int]:
    """This process's number among the worker's pool children, from 0, and how many there are; (0, 1) in threads."""
    from billiard.process import current_process

    index = getattr(current_process(), "index", None)
    size = int(os.environ.get(POOL_SIZE, "1"))
    return (index % size, size) if isinstance(index, int) and size > 1 else (0, 1)


def visible_gpus() -> tuple[str, ...]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    named = named_gpus()
    if named is not None:
        return named
    gpus = probe().gpus
    return tuple(map(str, range(gpus.count))) if gpus else ()


def host_environment(gpus: Sequence[str], cpus: Sequence[int], *, of_machine: bool) -> Mapping[str, str]:
    """What a host with these devices has in its environment; set before it imports anything.

    `of_machine` says that the CPUs are all there are. Where they are not, MLOC_HOST_CPUS binds the host to them, and
    with it every engine process that it starts.
    """
    env = {"CUDA_VISIBLE_DEVICES": ",".join(gpus), "TOKENIZERS_PARALLELISM": "false"}
    env["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS", str(len(cpus)))
    if not of_machine:
        env["MLOC_HOST_CPUS"] = ",".join(map(str, cpus))
        env["OMP_WAIT_POLICY"] = os.environ.get("OMP_WAIT_POLICY", "PASSIVE")
    return env
