"""Environment variables of vLLM, set before it is imported; what the operator set stays."""

from __future__ import annotations

import os
import platform
from collections import defaultdict
from collections.abc import Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any

from mloc_tasks.cpus import Cpu

GIB = 1 << 30
CPU_CACHE_SHARE = 0.25  # of the available memory, for the key-value cache: several engines may share a machine
CPU_CACHE_MOST_BYTES = 8 * GIB

NODES = "CPU_VISIBLE_MEMORY_NODES"
BINDING = "VLLM_CPU_OMP_THREADS_BIND"
_PLACING = (NODES, BINDING, "VLLM_CPU_SIM_MULTI_NUMA")
_QUIET = {
    # No usage report leaves the machine.
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_DO_NOT_TRACK": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",
    "VLLM_LOGGING_COLOR": "0",
    # The process has threads by then: a forked engine could inherit a lock that nobody will release.
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
}


def prepare(environment: MutableMapping[str, str] = os.environ) -> None:
    """Set what vLLM reads from the environment. Call it before the first import of vLLM."""
    for name, value in _QUIET.items():
        environment.setdefault(name, value)


def cpu_defaults(
    given: Mapping[str, Any], *, available: int, half_precision: bool, environment: Mapping[str, str] = os.environ
) -> dict[str, Any]:
    """Engine arguments for a CPU where `model.vllm` (`given`) and the environment leave them open.

    No compilation, which takes minutes on few cores, and a key-value cache that leaves room for others: vLLM itself
    would take nine tenths of the machine's memory.

    Args:
        available: bytes of memory that can be had.
        half_precision: the processor computes in bfloat16. One that does not is four times as fast in float32.
    """
    defaults: dict[str, Any] = {"enforce_eager": True}
    if not half_precision:
        defaults["dtype"] = "float32"
    sized = {"kv_cache_memory_bytes", "gpu_memory_utilization"} & set(given)
    if not sized and not environment.get("VLLM_CPU_KVCACHE_SPACE"):
        defaults["kv_cache_memory_bytes"] = min(int(available * CPU_CACHE_SHARE), CPU_CACHE_MOST_BYTES)
    return defaults


def cpu_placement(
    cpus: Sequence[Cpu], *, memory: Sequence[int], ranks: int = 1, environment: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """Variables that put a CPU engine's threads and memory on this process's CPUs; none where vLLM does so by itself.

    By itself it takes the first NUMA nodes that have memory for the process, one for each of its ranks, and binds
    threads to one CPU of each core there that the process may run on: to none at all, or to a few, where the process's
    share of the CPUs is elsewhere.

    Args:
        cpus: those that this process may run on.
        memory: the nodes whose memory it may use.
        ranks: the engine's processes.
    """
    if not memory or any(environment.get(name) for name in _PLACING):
        return {}
    cores: defaultdict[int, set[int]] = defaultdict(set)
    for cpu in cpus:
        cores[cpu.node].add(cpu.core)
    near = sorted((node for node in cores if node in memory), key=lambda node: (-len(cores[node]), node))
    if not near:  # its CPUs are far from all its memory; they are then its threads' bounds
        return {BINDING: "nobind"}
    chosen = sorted(near[:ranks])
    return {} if chosen == sorted(memory)[:ranks] else {NODES: ",".join(map(str, chosen))}


def computes_half_precision(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether this processor has instructions for bfloat16; yes for those that are not x86, which vLLM looks at."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return True
    try:
        text = cpuinfo.read_text(encoding="utf-8")
    except OSError:
        return True
    flags = next((line.partition(":")[2] for line in text.splitlines() if line.startswith("flags")), "").split()
    return not flags or bool({"avx512_bf16", "amx_bf16"} & set(flags))
