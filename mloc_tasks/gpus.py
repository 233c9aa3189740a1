"""The NVIDIA GPUs that this process may use, asked of NVML: initialising CUDA would make it unfit to fork."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any


def named_gpus() -> tuple[str, ...] | None:
    """The GPUs that CUDA_VISIBLE_DEVICES names, as CUDA reads it: what comes after a -1 does not count. None: all."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        return None
    parts = (part.strip() for part in named.split(","))
    return tuple(itertools.takewhile(lambda part: part and part != "-1", parts))


@contextmanager
def gpu_handles(nvml: Any) -> Iterator[list[Any]]:
    """NVML's handles of these GPUs, in CUDA's order, for the time of the block.

    As for CUDA, those named after one that does not exist do not count.

    Args:
        nvml: the module pynvml, wherever it was found.

    Raises `nvml.NVMLError` where there is no driver.
    """
    nvml.nvmlInit()
    try:
        named = named_gpus()
        names = map(str, range(nvml.nvmlDeviceGetCount())) if named is None else named
        handles = []
        with suppress(nvml.NVMLError):
            for name in names:
                handles.append(_handle(nvml, name))  # noqa: PERF401  # those before the first unknown one count
        yield handles
    finally:
        nvml.nvmlShutdown()


def gpu_name(nvml: Any, handle: Any) -> str:
    """What its maker calls it."""
    name = nvml.nvmlDeviceGetName(handle)
    return name.decode() if isinstance(name, bytes) else str(name)


def _handle(nvml: Any, name: str) -> Any:
    """By index, or by the UUID of a GPU or a MIG slice."""
    return nvml.nvmlDeviceGetHandleByIndex(int(name)) if name.isdigit() else nvml.nvmlDeviceGetHandleByUUID(name)
