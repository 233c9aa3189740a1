"""The last model stays loaded; another one takes its place."""

from __future__ import annotations

from typing import Any, cast

from mloc_tasks.executors.transformers.loading import LoadedModel, ModelCache
from mloc_tasks.executors.transformers.placement import Placement
from mloc_tasks.models import ModelFiles

CPU = Placement(device="cpu", arguments={"dtype": "auto"})


class Loader:
    """Counts loads; stands in for Transformers, since only which calls come is of interest."""

    def __init__(self) -> None:
        self.loads: list[str] = []

    def __call__(self, files: ModelFiles, placement: Placement) -> LoadedModel:
        self.loads.append(files.location)
        return cast(LoadedModel, object())


def files(location: str, **more: Any) -> ModelFiles:
    return ModelFiles(name=location, location=location, **more)


def test_same_model_is_loaded_once() -> None:
    cache, loader = ModelCache(), Loader()
    with cache.exclusive():
        first = cache.get(files("/a"), CPU, loader=loader)
    with cache.exclusive():
        assert cache.get(files("/a"), CPU, loader=loader) is first
    assert loader.loads == ["/a"]


def test_other_model_revision_or_arguments_are_another_load() -> None:
    cache, loader = ModelCache(), Loader()
    with cache.exclusive():
        cache.get(files("/a"), CPU, loader=loader)
        cache.get(files("/b"), CPU, loader=loader)
        cache.get(files("/b", revision="c0ffee"), CPU, loader=loader)
        cache.get(
            files("/b", revision="c0ffee"), Placement(device="cpu", arguments={"dtype": "float32"}), loader=loader
        )
    assert loader.loads == ["/a", "/b", "/b", "/b"]
