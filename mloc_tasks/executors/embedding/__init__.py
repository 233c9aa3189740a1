"""Rows to vectors: through sentence-transformers, Transformers or vLLM. Nothing heavy is imported before it runs."""

from mloc_tasks.executors.embedding.executor import EmbeddingExecutor
from mloc_tasks.executors.embedding.vllm_executor import VllmEmbeddingExecutor

__all__ = ["EmbeddingExecutor", "VllmEmbeddingExecutor"]
