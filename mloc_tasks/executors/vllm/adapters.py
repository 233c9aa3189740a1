"""The LoRA adapter that a stage answers with: which it is, its rank, and its identity in the engine."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mloc_tasks.errors import ModelError
from mloc_tasks.models.contents import ADAPTER_CONFIG, is_adapter

CHECKPOINT_NAME = "checkpoint"
WEIGHTS = "adapter_model.safetensors"
READS_HIDDEN_STATE = (".q_proj.", ".k_proj.", ".v_proj.", ".gate_proj.", ".up_proj.")
"""Layers whose input has the model's hidden size in the usual architectures."""
RANKS = (16, 32, 64, 128, 256, 320, 512)
"""Ranks that an engine is made for (its `max_lora_rank`); few, so that adapters of near ranks share one."""


@dataclass(frozen=True, kw_only=True)
class AdapterFiles:
    """An adapter as PEFT saves it, in a directory of this machine, and what results call it."""

    name: str
    path: Path

    def identity(self) -> str:
        """Changes when the files do: another training may have written to the same path."""
        stats = [(each.name, each.stat().st_size, each.stat().st_mtime_ns) for each in sorted(self.path.iterdir())]
        return hashlib.sha256(repr([str(self.path.resolve()), stats]).encode()).hexdigest()[:16]


def adapter_of(document: Mapping[str, Any]) -> AdapterFiles | None:
    """The stage's adapter, or None; `document` is its spec with snake_case keys and its files on this machine.

    Raises ModelError when there are several, or the files are no adapter.
    """
    named = _named(document)
    if not named:
        return None
    if len(named) > 1:
        names = " and ".join(name for name, _ in named)
        hint = "keep one, or use the Transformers executor (model.transformers: {}), which merges them into the model"
        raise ModelError(f"vLLM answers a stage with one adapter, and this one has {names}", hint=hint)
    ((name, path),) = named
    if path is None:
        raise ModelError(f"the adapter {name!r} was not fetched to this worker")
    if not (path / ADAPTER_CONFIG).is_file():
        raise ModelError(f"the adapter {name!r} is not at {path}: there is no {ADAPTER_CONFIG}")
    return AdapterFiles(name=name, path=path)


def check_width(adapter: AdapterFiles, width: int) -> None:
    """Raise ModelError when the adapter was trained on a model of another hidden size.

    vLLM copies weights that are too small into the corner of larger ones, and answers with that.
    """
    path = adapter.path / WEIGHTS
    if not path.is_file():
        return
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as weights:
        for name in weights.keys():  # noqa: SIM118  # it is no mapping
            if name.endswith("lora_A.weight") and any(each in name for each in READS_HIDDEN_STATE):
                found = weights.get_slice(name).get_shape()[1]
                if found != width:
                    raise ModelError(
                        f"the adapter {adapter.name!r} at {adapter.path} was trained on another model: its {name} "
                        f"has a width of {found}, the model has {width}"
                    )


def whole_checkpoint(document: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The `checkpoint.load` block where it names a model of its own, and not an adapter; else None."""
    load = _checkpoint_load(document)
    return None if load is None or _is_adapter(load) else load


def lora_rank(document: Mapping[str, Any]) -> int | None:
    """The rank that an engine for this stage is made for; None when it needs none.

    What it cannot read is counted as of the least rank; loading the adapter says what is wrong with it.
    """
    named = _named(document)
    if not named:
        return None
    highest = max(0 if path is None else _rank(path) for _, path in named)
    return next((each for each in RANKS if each >= highest), highest)


def _named(document: Mapping[str, Any]) -> list[tuple[str, Path | None]]:
    """Names and directories of the stage's adapters."""
    found = [(str(each.get("name")), _path(each)) for each in (document.get("model") or {}).get("adapters") or ()]
    load = _checkpoint_load(document)
    if load is not None and _is_adapter(load):
        found.insert(0, (CHECKPOINT_NAME, _path(load)))
    return found


def _checkpoint_load(document: Mapping[str, Any]) -> Mapping[str, Any] | None:
    load = (document.get("checkpoint") or {}).get("load")
    return load if isinstance(load, Mapping) else None


def _is_adapter(load: Mapping[str, Any]) -> bool:
    path = _path(load)
    return path is not None and is_adapter(path)


def _path(block: Mapping[str, Any]) -> Path | None:
    path = block.get("path")
    return Path(path).expanduser().absolute() if isinstance(path, str) else None


def _rank(adapter: Path) -> int:
    try:
        config = json.loads((adapter / ADAPTER_CONFIG).read_text(encoding="utf-8"))
        return max([int(config["r"]), *(int(each) for each in (config.get("rank_pattern") or {}).values())])
    except (OSError, ValueError, KeyError, TypeError):
        return 0
