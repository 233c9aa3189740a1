"""Which GPUs and CPUs are whose; found without CUDA."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace

import pytest

from mloc_tasks.cpus import Cpu, share, usable_cpus
from mloc_tasks.host.devices import Devices, host_environment, my_devices, visible_gpus
from mloc_tasks.worker.hardware import probe

GIB = 2**30


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """An NVML that knows four GPUs; gives the names of its functions that were called."""
    called: list[str] = []
    answers = {
        "nvmlDeviceGetCount": 4,
        "nvmlDeviceGetName": "NVIDIA H200",
        "nvmlDeviceGetMemoryInfo": SimpleNamespace(total=141 * GIB),
    }

    class Stub(ModuleType):
        NVMLError = OSError

        def __getattr__(self, name: str) -> object:
            if not name.startswith("nvml"):
                raise AttributeError(name)
            called.append(name)
            return lambda *_: answers.get(name)

    monkeypatch.setitem(sys.modules, "pynvml", Stub("pynvml"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    probe.cache_clear()
    yield called
    probe.cache_clear()


def test_gpus_are_found_by_nvml_alone_which_is_left_again(nvml: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for library in ("torch", "vllm", "cuda"):
        monkeypatch.setitem(sys.modules, library, None)  # importing it is an error
    assert my_devices() == Devices(gpus=("0", "1", "2", "3"), cpus=usable_cpus())
    assert (nvml[0], nvml[-1]) == ("nvmlInit", "nvmlShutdown")


def test_a_pool_child_takes_its_part(nvml: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLOC_POOL_SIZE", "2")
    monkeypatch.setattr("billiard.process.current_process", lambda: SimpleNamespace(index=1))
    assert my_devices().gpus == ("2", "3")


def test_pool_children_have_no_core_in_common(monkeypatch: pytest.MonkeyPatch) -> None:
    smt = [Cpu(node=number // 2 % 2, core=number % 4, number=number) for number in range(8)]
    monkeypatch.setattr("mloc_tasks.host.devices.usable_cpus", lambda: tuple(range(8)))
    monkeypatch.setattr("mloc_tasks.host.devices.topology", lambda numbers: [smt[number] for number in numbers])
    monkeypatch.setenv("MLOC_POOL_SIZE", "2")
    found = []
    for index in range(2):
        monkeypatch.setattr("billiard.process.current_process", lambda index=index: SimpleNamespace(index=index))
        found.append(my_devices().cpus)
    assert found == [(0, 1, 4, 5), (2, 3, 6, 7)]


def test_minus_one_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,-1,2")
    assert visible_gpus() == ("1",)


def test_the_gpus_that_a_worker_was_given_are_shared_by_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4, GPU-8932f937,6,7")
    assert visible_gpus() == ("4", "GPU-8932f937", "6", "7")
    assert share(visible_gpus(), 1, 2) == ("6", "7")


def test_a_share_of_the_cpus_binds_the_host_to_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    part = host_environment(("1",), (2, 3), of_machine=False)
    assert (part["MLOC_HOST_CPUS"], part["OMP_NUM_THREADS"], part["CUDA_VISIBLE_DEVICES"]) == ("2,3", "2", "1")
    assert "MLOC_HOST_CPUS" not in host_environment((), (0, 1), of_machine=True)
