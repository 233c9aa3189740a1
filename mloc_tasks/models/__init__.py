"""Where models come from: what a stage names becomes something that loads from a directory or the Hub's cache.

The worker calls `materialise`, an executor `files_of_stage`.
"""

from mloc_tasks.models.source import ModelFiles, resolve
from mloc_tasks.models.stage import files_of_stage, model_name

__all__ = ["ModelFiles", "files_of_stage", "model_name", "resolve"]
