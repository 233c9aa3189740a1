"""The model that a stage works with: `model.source`, `model.adapters` and `checkpoint.load` taken together."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mloc_tasks.errors import ModelError
from mloc_tasks.models.contents import ADAPTER_CONFIG, is_adapter, is_ppo_checkpoint
from mloc_tasks.models.downloads import address_of
from mloc_tasks.models.source import ModelFiles, loadable_directory, resolve

if TYPE_CHECKING:
    from mloc_tasks.spec import StageSpec

Log = Callable[[str], None]


def files_of_stage(spec: StageSpec, *, cache_dir: Path, log: Log = lambda message: None) -> ModelFiles:
    """Find the model and the adapters of a stage whose document went through `materialise`.

    A checkpoint that is a whole model takes the place of `model.source`; one that is an adapter goes onto it, before
    those of `model.adapters`. A GGUF file is converted on its first use.

    Raises ModelError when no model is named, or one is not there or does not load.
    """
    started_from = _checkpoint_path(spec)
    if started_from is not None and is_ppo_checkpoint(started_from):
        raise ModelError(
            f"checkpoint.load is a checkpoint of ppo ({address_of(started_from)}), which holds no whole model",
            hint="load that run's final_lora or final_model; a ppo stage goes on from it with type: checkpoint",
        )
    adapters = [_local(adapter.path, adapter.url) for adapter in spec.model.adapters] if spec.model is not None else []
    if started_from is not None and is_adapter(started_from):
        files = _source_files(spec, cache_dir, log, needed_by=started_from)
        adapters.insert(0, started_from)
    elif started_from is not None:
        directory = loadable_directory(started_from, cache_dir=cache_dir, log=log)
        trusted = spec.model is not None and spec.model.source is not None and spec.model.source.trust_remote_code
        files = ModelFiles(name=address_of(started_from), location=str(directory), trust_remote_code=trusted)
    else:
        files = _source_files(spec, cache_dir, log)
    return replace(files, adapters=tuple(str(path) for path in adapters))


def model_name(spec: StageSpec) -> str:
    """What results call the stage's model: what the spec called it, also where it was fetched to a path of ours."""
    started_from = _checkpoint_path(spec)
    if started_from is not None and not is_adapter(started_from):
        return address_of(started_from)
    source = None if spec.model is None else spec.model.source
    if source is None:
        return ""
    return address_of(source.identifier) if source.type == "local" else source.identifier


def _checkpoint_path(spec: StageSpec) -> Path | None:
    load = None if spec.checkpoint is None else spec.checkpoint.load
    return None if load is None else _local(load.path, load.url)


def _source_files(spec: StageSpec, cache_dir: Path, log: Log, *, needed_by: Path | None = None) -> ModelFiles:
    source = None if spec.model is None else spec.model.source
    if source is None:
        if needed_by is None:
            raise ModelError("the stage names no model", hint="set model.source.identifier")
        raise ModelError(
            f"checkpoint.load is a LoRA adapter ({address_of(needed_by)}), and the stage names no model for it",
            hint=f"set model.source.identifier; it was trained on {_base_of(needed_by)}",
        )
    return resolve(
        kind=source.type,
        identifier=source.identifier,
        revision=source.revision,
        trust_remote_code=source.trust_remote_code,
        cache_dir=cache_dir,
        log=log,
    )


def _base_of(adapter: Path) -> str:
    try:
        config: Any = json.loads((adapter / ADAPTER_CONFIG).read_text(encoding="utf-8"))
        return str(config["base_model_name_or_path"])
    except (OSError, ValueError, KeyError, TypeError):
        return "a model that it does not name"


def _local(path: str | None, url: str | None) -> Path:
    if path is None:
        raise ModelError(f"{url} was not fetched", hint="the worker does that before it calls an executor: materialise")
    return Path(path).expanduser().absolute()
