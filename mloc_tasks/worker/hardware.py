"""What this machine has, found without initialising CUDA: the worker's parent process must stay forkable."""

from __future__ import annotations

from functools import lru_cache

from mloc_tasks.capabilities import Capabilities, Gpus
from mloc_tasks.cpus import usable_cpus
from mloc_tasks.gpus import gpu_handles, gpu_name
from mloc_tasks.main_memory import main_memory


@lru_cache(maxsize=1)
def probe() -> Capabilities:
    """CPUs and bytes of memory that this process may use, and GPUs by NVML (none where there is no NVIDIA driver)."""
    return Capabilities(cpu=float(len(usable_cpus())), memory=main_memory().total, gpus=_probe_gpus())


def _probe_gpus() -> Gpus | None:
    try:
        import pynvml
    except ImportError:
        return None
    try:
        with gpu_handles(pynvml) as handles:
            if not handles:
                return None
            memory = min(int(pynvml.nvmlDeviceGetMemoryInfo(handle).total) for handle in handles)
            kind = gpu_name(pynvml, handles[0]).lower().replace(" ", "-")
            return Gpus(type=kind, count=len(handles), memory=memory)
    except pynvml.NVMLError:
        return None  # no driver: a machine without NVIDIA GPUs


def machine_capabilities(tags: tuple[str, ...]) -> Capabilities:
    """The machine's hardware and the tags that its operator gave it."""
    hardware = probe()
    return Capabilities(cpu=hardware.cpu, memory=hardware.memory, gpus=hardware.gpus, tags=frozenset(tags))
