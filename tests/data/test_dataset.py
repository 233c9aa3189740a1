"""Datasets, read through the real library from local folders."""

from __future__ import annotations

import json
from pathlib import Path

import datasets
import pytest

from mloc_tasks.data.dataset import DatasetRows
from mloc_tasks.data.inputs import Inputs
from mloc_tasks.data.rows import PromptReading
from mloc_tasks.errors import InputError

QUESTIONS = [f"question {number}" for number in range(200)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder as datasets are published: data files named after their split."""
    root = tmp_path_factory.mktemp("published")
    table = datasets.Dataset.from_dict({"question": QUESTIONS, "answer": ["a"] * 200})
    table.to_parquet(root / "train.parquet")
    table.select(range(3)).to_parquet(root / "test.parquet")
    return str(root)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.getbasetemp() / "hf-cache")


def rows(source: DatasetRows) -> list[object]:
    inputs = Inputs(source)
    return list(inputs.slice(0, inputs.count()))


def test_a_slice_of_a_split_is_counted_and_sliced(folder: str) -> None:
    inputs = Inputs(DatasetRows(folder, split="train[:10%]", reading=PromptReading("question")))

    assert inputs.count() == 20
    assert list(inputs.slice(5, 8)) == QUESTIONS[5:8]
    assert inputs.offsets([0, 5]) == [None, None]
    assert rows(DatasetRows(folder, split="test", reading=PromptReading("question"))) == QUESTIONS[:3]


def test_shuffle_and_max_samples_are_the_same_on_every_worker(folder: str) -> None:
    def source(seed: int) -> DatasetRows:
        return DatasetRows(folder, reading=PromptReading("question"), shuffle_seed=seed, max_samples=10)

    first = rows(source(1))
    assert len(set(map(str, first))) == 10
    assert first == rows(source(1)) != rows(source(2))
    assert first != QUESTIONS[:10]


def test_a_single_data_file_and_a_saved_dataset_are_datasets_too(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"prompt": question}) + "\n" for question in QUESTIONS))
    datasets.Dataset.from_dict({"prompt": QUESTIONS}).save_to_disk(tmp_path / "saved")

    assert rows(DatasetRows(str(path), split="train[-2:]")) == QUESTIONS[-2:]
    assert rows(DatasetRows(str(tmp_path / "saved"))) == QUESTIONS
    assert rows(DatasetRows(str(tmp_path / "saved"), split="train[:1%]")) == QUESTIONS[:2]


@pytest.mark.parametrize(
    ("split", "column", "message"),
    [
        ("train", "qestion", "no column 'qestion'; the columns are 'question', 'answer'"),
        ("train", None, "which column holds the prompt"),
        ("trian", "question", 'Unknown split "trian"'),
    ],
)
def test_what_a_dataset_does_not_have_is_named(folder: str, split: str, column: str | None, message: str) -> None:
    with pytest.raises(InputError) as caught:
        DatasetRows(folder, split=split, reading=PromptReading(column)).count()
    assert message in str(caught.value)
    assert not caught.value.retryable


def test_a_folder_that_is_missing_or_empty_is_an_input_error(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing" / "deeper"):
        with pytest.raises(InputError, match=path.name):
            DatasetRows(str(path)).count()
