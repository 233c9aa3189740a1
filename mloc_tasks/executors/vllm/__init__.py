"""Batch inference through vLLM, on GPUs or CPU. Importing this imports no vLLM; the worker itself may lack it."""

from mloc_tasks.executors.vllm.executor import VllmExecutor

__all__ = ["VllmExecutor"]
