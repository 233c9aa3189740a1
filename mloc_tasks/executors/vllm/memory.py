"""Whether the memory that an engine will claim is free, asked before minutes go into loading it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mloc_tasks.errors import ExecutionError, RetryableExecutionError
from mloc_tasks.gpus import gpu_handles, gpu_name
from mloc_tasks.main_memory import main_memory

GIB = 1 << 30
VLLM_UTILIZATION = 0.9  # what vLLM takes of a device when it is told nothing
_SLACK_BYTES = 1 << 28  # of the driver's own, which comes and goes
_ASK_HINT = "set resources.hardware.gpu.count: 1"


@dataclass(frozen=True, kw_only=True)
class Device:
    """A GPU, or the machine's main memory; sizes in bytes."""

    name: str
    total: int
    free: int


def check_memory(arguments: Mapping[str, Any], devices: Sequence[Device]) -> None:
    """Raise RetryableExecutionError when a device has less free memory than `gpu_memory_utilization` asks of it.

    Raises ExecutionError for a utilization that is no share.
    """
    share = arguments.get("gpu_memory_utilization", VLLM_UTILIZATION)
    if not isinstance(share, int | float) or not 0 < share <= 1:
        raise ExecutionError(f"model.vllm.gpu_memory_utilization {share!r} is not a share above 0, up to 1")
    for device in devices:
        wanted = share * device.total
        if wanted > device.free + _SLACK_BYTES:
            fitting = int(100 * device.free / device.total) / 100
            raise RetryableExecutionError(
                f"gpu_memory_utilization {share:g} asks for {_gib(wanted)} of the {_gib(device.total)} of "
                f"{device.name}, but {_gib(device.free)} are free: something else uses "
                f"{_gib(device.total - device.free)}",
                hint=f"end what uses it, or set model.vllm.gpu_memory_utilization to {fitting:g} at most",
            )


def visible_gpus(count: int, *, asked: bool) -> list[Device]:
    """The first `count` GPUs that this process may use, by NVML, which takes no memory of them.

    Args:
        asked: the stage asks for GPUs; to one that does not, none are shown.

    Raises ExecutionError when there are fewer.
    """
    from vllm.third_party import pynvml

    try:
        with gpu_handles(pynvml) as handles:
            if not handles and not asked:
                raise ExecutionError(
                    "the vLLM on this worker is a GPU build, and the stage asks for no GPU", hint=_ASK_HINT
                )
            if len(handles) < count:
                raise ExecutionError(
                    f"the engine needs {count} GPUs, but this worker's process has {len(handles)}",
                    hint="lower resources.hardware.gpu.count or model.vllm.tensor_parallel_size, or give a worker "
                    "child more GPUs (mloc worker -c 1)",
                )
            return [_device(pynvml, handle) for handle in handles[:count]]
    except pynvml.NVMLError as error:
        hint = "" if asked else _ASK_HINT
        raise ExecutionError(f"the installed vLLM needs a GPU, and none can be reached: {error}", hint=hint) from error


def machine_memory() -> Device:
    """The main memory that this process may have."""
    memory = main_memory()
    return Device(name="this machine's memory", total=memory.total, free=memory.free)


def _device(nvml: Any, handle: Any) -> Device:
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    return Device(name=f"the GPU {gpu_name(nvml, handle)}", total=int(memory.total), free=int(memory.free))


def _gib(size: float) -> str:
    return f"{size / GIB:.1f} GiB"
