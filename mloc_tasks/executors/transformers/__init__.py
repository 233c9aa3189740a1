"""Batch inference through Hugging Face Transformers, on one CPU or GPU. Nothing heavy is imported before it runs."""

from mloc_tasks.executors.transformers.executor import TransformersExecutor

__all__ = ["TransformersExecutor"]
