"""LoRA adapters: which one a stage has, and what an engine has to be made for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mloc_tasks.errors import ModelError
from mloc_tasks.executors.vllm import VllmExecutor
from mloc_tasks.executors.vllm.adapters import adapter_of, lora_rank

SOURCE = {"source": {"identifier": "a/b"}}


def adapter(folder: Path, rank: int, **config: Any) -> str:
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"r": rank, **config}))
    return str(folder)


def stage(*paths: str, **model: Any) -> dict[str, Any]:
    adapters = [{"name": f"adapter{place}", "path": path} for place, path in enumerate(paths)]
    return {"task_type": "inference", "model": {**SOURCE, "adapters": adapters, **model}}


def test_adapters_of_near_ranks_share_an_engine(tmp_path: Path) -> None:
    low, high = adapter(tmp_path / "low", 4), adapter(tmp_path / "high", 16)
    assert VllmExecutor.host_key(stage(low)) == VllmExecutor.host_key(stage(high))


def test_what_an_engine_is_made_of_makes_another_one(tmp_path: Path) -> None:
    low, highest = adapter(tmp_path / "low", 8), adapter(tmp_path / "highest", 16, rank_pattern={"q": 64})
    documents = [
        stage(),
        stage(low),
        stage(highest),
        stage(vllm={"max_model_len": 1024}),
        stage(vllm={"max_model_len": 2048}),
        stage(config={"bf16": True}),
        {**stage(), "resources": {"hardware": {"gpu": {"count": 2}}}},
        {**stage(), "checkpoint": {"load": {"path": str(tmp_path)}}},
    ]
    assert len({VllmExecutor.host_key(each) for each in documents}) == len(documents)


def test_what_comes_with_the_requests_does_not() -> None:
    key = VllmExecutor.host_key(stage(vllm={"max_model_len": 1024}))
    assert key == VllmExecutor.host_key({**stage(vllm={"maxModelLen": 1024}), "inference": {"max_tokens": 9}})


def test_rank_is_the_next_that_engines_are_made_for(tmp_path: Path) -> None:
    assert lora_rank(stage(adapter(tmp_path / "a", 17))) == 32
    assert lora_rank(stage(str(tmp_path / "missing"))) == 16
    assert lora_rank(stage()) is None


def test_a_checkpoint_that_is_an_adapter_needs_no_model_of_its_own(tmp_path: Path) -> None:
    path = adapter(tmp_path / "a", 8)
    document = {"task_type": "inference", "model": SOURCE, "checkpoint": {"load": {"path": path}}}
    assert VllmExecutor.host_key(document) == VllmExecutor.host_key(stage(path))
    found = adapter_of(document)
    assert found is not None
    assert found.name == "checkpoint"


def test_two_adapters_are_one_too_many(tmp_path: Path) -> None:
    paths = [adapter(tmp_path / "a", 8), adapter(tmp_path / "b", 8)]
    with pytest.raises(ModelError, match="adapter0 and adapter1"):
        adapter_of(stage(*paths))


def test_files_that_are_no_adapter_are_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="'adapter0' is not at"):
        adapter_of(stage(str(tmp_path)))


def test_identity_follows_the_files(tmp_path: Path) -> None:
    path = adapter(tmp_path / "a", 8)
    found = adapter_of(stage(path))
    assert found is not None
    before = found.identity()
    assert found.identity() == before
    (tmp_path / "a" / "adapter_model.safetensors").write_bytes(b"trained again")
    assert found.identity() != before
