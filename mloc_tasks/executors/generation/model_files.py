"""The files of the model that a stage names."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from mloc_tasks.errors import ModelError
from mloc_tasks.models import ModelFiles, resolve

if TYPE_CHECKING:
    from mloc_tasks.executors.base import Task

DEFAULT_CACHE_DIR = "~/.cache/mloc"


def model_files(task: Task) -> ModelFiles:
    """Find `model.source`, converting it when need be. Raises ModelError when it is missing or does not resolve."""
    model = task.spec.model
    source = None if model is None else model.source
    if source is None:
        raise ModelError("inference needs a model", hint="set model.source.identifier")
    return resolve(
        kind=source.type,
        identifier=source.identifier,
        revision=source.revision,
        trust_remote_code=source.trust_remote_code,
        cache_dir=cache_dir_of(task),
        log=task.report.log,
    )


def cache_dir_of(task: Task) -> Path:
    """Where converted models are kept: the task's, else as the setting MLOC_CACHE_DIR says."""
    return task.cache_dir or Path(os.environ.get("MLOC_CACHE_DIR") or DEFAULT_CACHE_DIR).expanduser()
