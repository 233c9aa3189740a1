"""The LoRA adapter that a stage answers with: which it is, its rank, and its identity in the engine."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mloc_tasks.errors import ModelError
from mloc_tasks.models.contents import ADAPTER_CONFIG, is_adapter

if TYPE_CHECKING:
    from mloc_tasks.spec import StageSpec

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


def adapter_of(spec: StageSpec, directories: Sequence[str]) -> AdapterFiles | None:
    """The stage's adapter, or None.

    Args:
        directories: of its adapters, `ModelFiles.adapters`.

    Raises ModelError when there are several, or the files are no adapter.
    """
    if not directories:
        return None
    named = [each.name for each in spec.model.adapters] if spec.model is not None else []
    names = [CHECKPOINT_NAME] * (len(directories) - len(named)) + named
    if len(directories) > 1:
        hint = "keep one, or use the Transformers executor (model.transformers: {}), which merges them into the model"
        raise ModelError(f"vLLM answers a stage with one adapter, and this one has {' and '.join(names)}", hint=hint)
    path = Path(directories[0])
    if not (path / ADAPTER_CONFIG).is_file():
        raise ModelError(f"the adapter {names[0]!r} is not at {path}: there is no {ADAPTER_CONFIG}")
    return AdapterFiles(name=names[0], path=path)


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
    return None if load is None or _path_of_adapter(load) is not None else load


def lora_rank(document: Mapping[str, Any]) -> int | None:
    """The rank that an engine for this stage is made for; None when it needs none.

    What it cannot read is counted as of the least rank; loading the adapter says what is wrong with it.
    """
    adapters = list((document.get("model") or {}).get("adapters") or ())
    paths = [each["path"] for each in adapters if isinstance(each.get("path"), str)]
    load = _checkpoint_load(document)
    if load is not None and (path := _path_of_adapter(load)) is not None:
        paths.append(path)
    if not adapters and not paths:
        return None
    highest = max((_rank(Path(path).expanduser()) for path in paths), default=0)
    return next((each for each in RANKS if each >= highest), highest)


def _checkpoint_load(document: Mapping[str, Any]) -> Mapping[str, Any] | None:
    load = (document.get("checkpoint") or {}).get("load")
    return load if isinstance(load, Mapping) else None


def _path_of_adapter(load: Mapping[str, Any]) -> str | None:
    path = load.get("path")
    return path if isinstance(path, str) and is_adapter(Path(path).expanduser()) else None


def _rank(adapter: Path) -> int:
    try:
        config = json.loads((adapter / ADAPTER_CONFIG).read_text(encoding="utf-8"))
        return max([int(config["r"]), *(int(each) for each in (config.get("rank_pattern") or {}).values())])
    except (OSError, ValueError, KeyError, TypeError):
        return 0
