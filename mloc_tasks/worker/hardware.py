"""What this machine has, found without initialising CUDA: the worker's parent process must stay forkable."""

from __future__ import annotations

import itertools
import os
from functools import lru_cache

import psutil

from mloc_tasks.capabilities import Capabilities, Gpus


@lru_cache(maxsize=1)
def probe() -> Capabilities:
    """CPUs this process may use, memory in bytes, and GPUs by NVML (none where there is no NVIDIA driver)."""
    return Capabilities(cpu=float(usable_cpus()), memory=psutil.virtual_memory().total, gpus=_probe_gpus())


def usable_cpus() -> int:
    """CPUs that this process may run on; fewer than the machine has under taskset or in a container."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def named_gpus() -> tuple[str, ...] | None:
    """The GPUs that CUDA_VISIBLE_DEVICES names, as CUDA reads it: what comes after a -1 does not count. None: all."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        return None
    parts = (part.strip() for part in named.split(","))
    return tuple(itertools.takewhile(lambda part: part and part != "-1", parts))


def _probe_gpus() -> Gpus | None:
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None  # no driver: a machine without NVIDIA GPUs
    try:
        named = named_gpus()
        names = map(str, range(pynvml.nvmlDeviceGetCount())) if named is None else named
        handles = [
            pynvml.nvmlDeviceGetHandleByIndex(int(each)) if each.isdigit() else pynvml.nvmlDeviceGetHandleByUUID(each)
            for each in names
        ]
        if not handles:
            return None
        name = pynvml.nvmlDeviceGetName(handles[0])
        memory = min(int(pynvml.nvmlDeviceGetMemoryInfo(handle).total) for handle in handles)
        text = name.decode() if isinstance(name, bytes) else str(name)
        return Gpus(type=text.lower().replace(" ", "-"), count=len(handles), memory=memory)
    finally:
        pynvml.nvmlShutdown()


def machine_capabilities(tags: tuple[str, ...]) -> Capabilities:
    """The machine's hardware and the tags that its operator gave it."""
    hardware = probe()
    return Capabilities(cpu=hardware.cpu, memory=hardware.memory, gpus=hardware.gpus, tags=frozenset(tags))
