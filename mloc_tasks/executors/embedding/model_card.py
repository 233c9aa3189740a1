"""What a model's files say about how its vectors are made: those that sentence-transformers writes beside it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mloc_tasks.errors import ModelError

if TYPE_CHECKING:
    from mloc_tasks.models import ModelFiles

MODES = {"mean": "mean", "mean_tokens": "mean", "cls": "cls", "cls_token": "cls", "lasttoken": "last", "last": "last"}
"""Names of pooling in those files -> in the spec."""
_SIMPLE = {"Transformer", "Pooling", "Normalize"}


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """How vectors are made.

    Attributes:
        sentence_model: whether the model is made for sentence-transformers at all.
        pooling: mean, cls or last; another name where the files say one that only sentence-transformers knows; "" where
            they say nothing.
        normalized: whether vectors are scaled to length 1.
        max_length: tokens of a text at most.
        prefix: text before each row.
        other_modules: further steps, which only sentence-transformers can do.
    """

    sentence_model: bool = False
    pooling: str = ""
    normalized: bool = False
    max_length: int | None = None
    prefix: str = ""
    other_modules: tuple[str, ...] = ()


def read_card(files: ModelFiles) -> ModelCard:
    """The card of a model; an empty one where it has no such files. Raises ModelError when they cannot be read."""
    modules = _json(files, "modules.json")
    if not isinstance(modules, list):
        return ModelCard()
    kinds = [(str(each["type"]).rsplit(".", 1)[-1], str(each.get("path", ""))) for each in modules]
    limit = _json(files, "sentence_bert_config.json")
    settings = _json(files, "config_sentence_transformers.json")
    prompts = settings.get("prompts") or {} if isinstance(settings, dict) else {}
    default = settings.get("default_prompt_name") if isinstance(settings, dict) else None
    return ModelCard(
        sentence_model=True,
        pooling=next((_pooling(_json(files, f"{path}/config.json")) for kind, path in kinds if kind == "Pooling"), ""),
        normalized=any(kind == "Normalize" for kind, _ in kinds),
        max_length=limit.get("max_seq_length") if isinstance(limit, dict) else None,
        prefix=prompts.get(default, "") if default is not None else "",
        other_modules=tuple(kind for kind, _ in kinds if kind not in _SIMPLE),
    )


def _pooling(config: Any) -> str:
    """From `{"pooling_mode": "mean"}`, or `{"pooling_mode_mean_tokens": true, ...}` of older versions."""
    if not isinstance(config, dict):
        return ""
    named = config.get("pooling_mode")
    modes = [named] if isinstance(named, str) else list(named or ())
    prefix = "pooling_mode_"
    modes += [key.removeprefix(prefix) for key, value in config.items() if key.startswith(prefix) and value is True]
    return "+".join(MODES.get(mode, mode) for mode in modes)


def _json(files: ModelFiles, name: str) -> Any:
    from transformers.utils.hub import cached_file

    try:
        path = cached_file(
            files.location,
            name,
            revision=files.revision,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
        return None if path is None else json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{name} of the model {files.name} cannot be read: {error}") from error
