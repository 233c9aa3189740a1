"""Engine arguments from a spec."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from mloc_tasks.executors.vllm.arguments import ArgumentNameError, canonical, check_names, engine_arguments
from mloc_tasks.executors.vllm.environment import GIB, computes_half_precision, cpu_defaults, prepare
from mloc_tasks.models import ModelFiles
from mloc_tasks.spec import StageSpec

FILES = ModelFiles(name="a/b", location="/models/b", revision="abc", trust_remote_code=True)


def arguments(*, cpu: bool = False, lora_rank: int | None = None, **spec: Any) -> dict[str, Any]:
    spec = {"task_type": "inference", **spec}
    typed = StageSpec.model_validate(spec)
    return engine_arguments(typed, FILES, cpu=cpu, lora_rank=lora_rank, defaults={"enforce_eager": True})


def test_the_model_comes_from_its_source() -> None:
    found = arguments()
    assert found["model"] == "/models/b"
    assert found["revision"] == found["tokenizer_revision"] == "abc"
    assert found["trust_remote_code"] is True


def test_a_tokenizer_of_another_repository_has_a_revision_of_its_own(tmp_path: Path) -> None:
    def revision(**block: str) -> Any:
        return arguments(model={"vllm": block})["tokenizer_revision"]

    assert revision(tokenizer="c/d") == "main"
    assert revision(tokenizer="c/d", tokenizer_revision="v2") == "v2"
    assert revision(tokenizer=FILES.location) == "abc"
    assert revision(tokenizer=str(tmp_path)) is None


def test_the_block_goes_before_what_is_derived() -> None:
    model = {"vllm": {"tensorParallelSize": 2, "enforce-eager": False, "dtype": "float32"}, "config": {"bf16": True}}
    found = arguments(model=model, resources={"hardware": {"gpu": {"count": 4}}})
    assert found["tensor_parallel_size"] == 2
    assert found["enforce_eager"] is False
    assert found["dtype"] == "float32"


def test_the_gpus_of_the_stage_share_the_model() -> None:
    gpus = {"hardware": {"gpu": {"count": 4}}}
    assert arguments(resources=gpus)["tensor_parallel_size"] == 4
    assert arguments()["tensor_parallel_size"] == 1
    assert "tensor_parallel_size" not in arguments(resources=gpus, cpu=True)


@pytest.mark.parametrize(
    ("config", "cpu", "dtype"),
    [({"fp16": True}, False, "float16"), ({"fp16": True}, True, "bfloat16"), ({"bf16": True}, False, "bfloat16")],
)
def test_precision_is_that_of_the_configuration(config: dict[str, bool], cpu: bool, dtype: str) -> None:
    assert arguments(model={"config": config}, cpu=cpu)["dtype"] == dtype
    assert "dtype" not in arguments(cpu=cpu)


def test_adapters_are_provided_for() -> None:
    found = arguments(lora_rank=32)
    assert found["enable_lora"] is True
    assert found["max_lora_rank"] == 32
    assert "enable_lora" not in arguments()


def test_keys_are_taken_in_three_spellings_but_each_once() -> None:
    given = {"maxModelLen": 1, "max-num-seqs": 2, "dtype": "auto"}
    assert canonical(given) == {"max_model_len": 1, "max_num_seqs": 2, "dtype": "auto"}
    with pytest.raises(ArgumentNameError, match="max_model_len twice"):
        canonical({"max_model_len": 1, "maxModelLen": 1})
    with pytest.raises(ArgumentNameError, match=r"model\.source\.trust_remote_code"):
        canonical({"trustRemoteCode": True})


def test_names_are_those_of_the_installed_version() -> None:
    vllm = pytest.importorskip("vllm", reason="vLLM is not installed")
    known = {each.name for each in fields(vllm.AsyncEngineArgs)}
    check_names(["tensor_parallel_size", "gpu_memory_utilization", "max_model_len"], known=known, version="1")
    with pytest.raises(ArgumentNameError, match="max_model_length: vLLM 1 has no such engine argument") as caught:
        check_names(["max_model_length"], known=known, version="1")
    assert "max_model_len" in caught.value.hint


def defaults(given: dict[str, Any], *, available: int = GIB, **environment: str) -> dict[str, Any]:
    return cpu_defaults(given, available=available, half_precision=True, environment=environment)


def test_a_cpu_engine_leaves_memory_to_others_unless_told_otherwise() -> None:
    assert defaults({}, available=8 * GIB)["kv_cache_memory_bytes"] == 2 * GIB
    assert defaults({}, available=800 * GIB)["kv_cache_memory_bytes"] == 8 * GIB
    assert "kv_cache_memory_bytes" not in defaults({"gpu_memory_utilization": 0.5})
    assert "kv_cache_memory_bytes" not in defaults({}, VLLM_CPU_KVCACHE_SPACE="1")


@pytest.mark.parametrize(
    ("flags", "half"), [("fpu avx2", False), ("fpu avx512_bf16", True), ("amx_bf16 fpu", True), ("", True)]
)
def test_a_processor_without_bfloat16_computes_in_float32(
    flags: str, half: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor\t: 0\nflags\t\t: {flags}\n")
    assert computes_half_precision(cpuinfo) is half
    dtype = cpu_defaults({}, available=GIB, half_precision=half).get("dtype")
    assert dtype == (None if half else "float32")


def test_what_the_operator_set_in_the_environment_stays() -> None:
    environment = {"VLLM_LOGGING_LEVEL": "DEBUG"}
    prepare(environment)
    assert environment["VLLM_LOGGING_LEVEL"] == "DEBUG"
    assert environment["VLLM_NO_USAGE_STATS"] == "1"
