"""Where an executor keeps what it converts."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mloc_tasks.executors.base import Task

DEFAULT_CACHE_DIR = "~/.cache/mloc"


def cache_dir_of(task: Task) -> Path:
    """Where converted models are kept: the task's, else as the setting MLOC_CACHE_DIR says."""
    return task.cache_dir or Path(os.environ.get("MLOC_CACHE_DIR") or DEFAULT_CACHE_DIR).expanduser()
