"""Scores of answers: a stage's items compared with what was expected of them."""

from mloc_tasks.executors.evaluate.executor import EvaluateExecutor

__all__ = ["EvaluateExecutor"]
