"""A stage's model is its source, or the checkpoint that it starts from, with its adapters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from model_directories import filled

from mloc_tasks.artifacts import pack
from mloc_tasks.errors import ModelError
from mloc_tasks.models import ModelFiles, files_of_stage, model_name
from mloc_tasks.models.materialise import materialise
from mloc_tasks.spec import StageSpec


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    return filled(tmp_path / "trained", {"config.json": "{}"})


def stage(**document: Any) -> StageSpec:
    return StageSpec.model_validate({"task_type": "inference", **document})


def files(spec: StageSpec, tmp_path: Path) -> ModelFiles:
    return files_of_stage(spec, cache_dir=tmp_path / "cache")


def source_of(directory: Path) -> dict[str, Any]:
    return {"type": "local", "identifier": str(directory), "trust_remote_code": True}


def test_model_with_an_adapter(tmp_path: Path, model_dir: Path, adapter_dir: Path) -> None:
    adapters = [{"name": "mine", "path": str(adapter_dir)}]
    found = files(stage(model={"source": source_of(model_dir), "adapters": adapters}), tmp_path)
    assert found == ModelFiles(
        name=str(model_dir), location=str(model_dir), trust_remote_code=True, adapters=(str(adapter_dir),)
    )


def test_checkpoint_that_is_a_model_takes_the_place_of_the_source(
    tmp_path: Path, model_dir: Path, trained: Path
) -> None:
    for model in ({}, {"model": {"source": source_of(model_dir)}}):
        spec = stage(checkpoint={"load": {"path": str(trained)}}, **model)
        found = files(spec, tmp_path)
        assert (found.location, found.name, found.adapters) == (str(trained), str(trained), ())
        assert found.trust_remote_code == bool(model)
        assert model_name(spec) == str(trained)


def test_checkpoint_that_is_an_adapter_goes_onto_the_source(tmp_path: Path, model_dir: Path, adapter_dir: Path) -> None:
    second = filled(tmp_path / "second", {"adapter_config.json": "{}"})
    spec = stage(
        model={"source": source_of(model_dir), "adapters": [{"name": "b", "path": str(second)}]},
        checkpoint={"load": {"path": str(adapter_dir), "type": "adapter"}},
    )
    found = files(spec, tmp_path)
    assert (found.location, found.adapters) == (str(model_dir), (str(adapter_dir), str(second)))
    assert model_name(spec) == str(model_dir)


def test_adapter_without_a_model_says_which_one_it_was_trained_on(tmp_path: Path) -> None:
    adapter = filled(tmp_path / "adapter", {"adapter_config.json": '{"base_model_name_or_path": "acme/tiny"}'})
    with pytest.raises(ModelError, match=r"is a LoRA adapter .* names no model for it") as caught:
        files(stage(checkpoint={"load": {"path": str(adapter)}}), tmp_path)
    assert "acme/tiny" in caught.value.hint


def test_address_that_nobody_fetched_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="s3://bucket/checkpoint was not fetched"):
        files(stage(checkpoint={"load": {"url": "s3://bucket/checkpoint"}}), tmp_path)


def test_no_model_at_all_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="names no model"):
        files(stage(), tmp_path)


def test_results_call_a_fetched_model_what_the_spec_called_it(tmp_path: Path, model_dir: Path) -> None:
    archive = pack(model_dir, tmp_path / "model.tar.gz")
    document = {"task_type": "inference", "model": {"source": {"type": "local", "identifier": str(archive)}}}
    with materialise(document, cache_dir=tmp_path / "cache") as found:
        spec = StageSpec.model_validate(found)
        assert model_name(spec) == files(spec, tmp_path).name == str(archive)
    hub = stage(model={"source": {"identifier": "acme/tiny"}})
    assert model_name(hub) == "acme/tiny"
