"""Memory that an engine would claim and that is not there is found before loading."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import pytest

from mloc_tasks.errors import ExecutionError, RetryableExecutionError
from mloc_tasks.executors.vllm.environment import cpu_defaults
from mloc_tasks.executors.vllm.memory import GIB, Device, check_memory, machine_memory, visible_gpus
from mloc_tasks.main_memory import MainMemory


def gpu(free: float) -> Device:
    return Device(name="the GPU NVIDIA A100-SXM4-80GB", total=80 * GIB, free=int(free * GIB))


def test_a_device_in_use_is_refused_with_numbers() -> None:
    with pytest.raises(RetryableExecutionError) as caught:
        check_memory({"gpu_memory_utilization": 0.9}, [gpu(80), gpu(10)])
    assert "0.9 asks for 72.0 GiB of the 80.0 GiB of the GPU NVIDIA A100-SXM4-80GB" in str(caught.value)
    assert "10.0 GiB are free" in str(caught.value)
    assert "0.12 at most" in caught.value.hint


def test_what_vllm_takes_by_itself_counts_too() -> None:
    with pytest.raises(RetryableExecutionError, match=r"gpu_memory_utilization 0\.9"):
        check_memory({}, [gpu(10)])
    check_memory({}, [gpu(79.5)])


def test_a_share_that_fits_is_taken() -> None:
    check_memory({"gpu_memory_utilization": 0.1}, [gpu(10)])


@pytest.mark.parametrize("share", [0, 1.1, 90, "90%"])
def test_what_is_no_share_is_an_error(share: object) -> None:
    with pytest.raises(ExecutionError, match="is not a share"):
        check_memory({"gpu_memory_utilization": share}, [gpu(80)])


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> None:
    """The NVML that vLLM brings, on a machine with one GPU; a host without GPUs, as `CUDA_VISIBLE_DEVICES` says."""
    stub = SimpleNamespace(
        NVMLError=OSError, nvmlInit=lambda: None, nvmlShutdown=lambda: None, nvmlDeviceGetCount=lambda: 1
    )
    bundled = ModuleType("vllm.third_party")
    monkeypatch.setattr(bundled, "pynvml", stub, raising=False)
    monkeypatch.setitem(sys.modules, "vllm", ModuleType("vllm"))
    monkeypatch.setitem(sys.modules, "vllm.third_party", bundled)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


@pytest.mark.usefixtures("nvml")
def test_a_gpu_build_tells_a_stage_without_gpu_how_to_ask_for_one() -> None:
    with pytest.raises(ExecutionError, match="a GPU build, and the stage asks for no GPU") as caught:
        visible_gpus(1, asked=False)
    assert caught.value.hint == "set resources.hardware.gpu.count: 1"


@pytest.mark.usefixtures("nvml")
def test_fewer_gpus_than_asked_for_are_counted() -> None:
    with pytest.raises(ExecutionError, match="needs 2 GPUs, but this worker's process has 0"):
        visible_gpus(2, asked=True)


def test_a_container_s_limit_is_the_memory_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    pod = MainMemory(total=8 * GIB, free=6 * GIB)
    monkeypatch.setattr("mloc_tasks.executors.vllm.memory.main_memory", lambda: pod)
    machine = machine_memory()
    assert cpu_defaults({}, available=machine.free, half_precision=True, environment={})["kv_cache_memory_bytes"] == (
        6 * GIB // 4
    )
    with pytest.raises(RetryableExecutionError, match=r"asks for 7\.2 GiB of the 8\.0 GiB of this"):
        check_memory({"gpu_memory_utilization": 0.9}, [machine])
