"""Where models come from: a `model.source` becomes something that loads from a directory or the Hub's cache."""

from mloc_tasks.models.source import SOURCE_TYPES, ModelFiles, resolve

__all__ = ["SOURCE_TYPES", "ModelFiles", "resolve"]
