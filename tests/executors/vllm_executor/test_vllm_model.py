"""Inference on the real 135M model through vLLM, in float32: there, a row's answer hardly depends on its batch."""

from __future__ import annotations

import contextlib
import json
import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psutil
import pytest
from vllm_runs import ENGINE, IDENTIFIER, Runs

from mloc_tasks.data.items import ItemReader
from mloc_tasks.errors import ExecutionError, ModelError, RetryableExecutionError
from mloc_tasks.executors import Item
from mloc_tasks.executors.vllm import VllmExecutor

pytestmark = pytest.mark.model

FRANCE = "What is the capital of France?"
QUESTIONS = [FRANCE, "Name a colour.", "In one word, which planet do people live on?", "Say hello."]
SOON_SEC = 30


def test_capital_of_france_is_paris(runs: Runs) -> None:
    result = runs([FRANCE], max_tokens=24)
    (item,) = result["items"]
    assert item["output"] == "The capital of France is Paris."
    assert item["finish_reason"] == "stop"
    assert item["usage"] == {"prompt_tokens": 37, "completion_tokens": 8, "total_tokens": 45}
    assert result["model"] == IDENTIFIER
    assert result["usage"]["num_requests"] == 1
    assert result["usage"]["latency_sec"] > 0


def test_row_that_cannot_be_done_fails_alone(runs: Runs) -> None:
    rows: list[Item] = [FRANCE, "word " * 2000, [{"role": "user"}], [{"role": "user", "content": "Say hello."}]]
    out_dir = runs.out_dir()
    task = runs.task(rows, start=5, parts=True, max_tokens=4)
    result = runs.executor.run(task, out_dir)
    reader = ItemReader(lambda name: (out_dir / name).open("rb"))
    items = list(reader.items())
    assert [(item["index"], item.get("ok", True)) for item in items] == [(5, True), (6, False), (7, False), (8, True)]
    assert "context of 1024" in items[1]["error"]
    assert "'role' and 'content'" in items[2]["error"]
    assert result["items_failed"] == 2
    assert task.report.steps[-1] == (4, 4)  # type: ignore[attr-defined]


def test_more_failures_than_allowed_fail_the_stage(runs: Runs) -> None:
    with pytest.raises(ExecutionError, match="2 of 3 rows failed"):
        runs(["Say hello.", [], []], max_tokens=2, max_failed_items=1)


def test_completion_is_trimmed_to_the_room_that_is_left(runs: Runs) -> None:
    result = runs(["a " * 1000], chat=False, max_tokens=500, min_tokens=400, ignore_eos=True)
    usage = result["items"][0]["usage"]
    assert usage["prompt_tokens"] > 600
    assert usage["total_tokens"] == 1024
    assert result["items"][0]["finish_reason"] == "length"


def test_stop_string_ends_the_output_before_it(runs: Runs) -> None:
    result = runs([FRANCE], max_tokens=16, stop=[" Paris"])
    assert result["items"][0]["output"] == "The capital of France is"
    assert result["items"][0]["finish_reason"] == "stop"


def test_seeded_samples_are_the_same_whatever_the_shard(runs: Runs) -> None:
    sampling = {"max_tokens": 8, "temperature": 1.0, "top_p": 0.95, "seed": 11, "n": 2}
    whole = runs(QUESTIONS, **sampling)["items"]
    assert runs(QUESTIONS[2:], start=2, **sampling)["items"] == whole[2:]
    first, second = whole[0]["outputs"]
    assert first["output"] != second["output"]
    assert runs(QUESTIONS, **{**sampling, "seed": 12})["items"] != whole


def test_raw_prompt_is_continued_and_logprobs_cover_each_token(runs: Runs) -> None:
    (item,) = runs(["The capital of France is"], chat=False, max_tokens=2, logprobs=2)["items"]
    assert item["output"].startswith(" Paris")
    first, _ = item["logprobs"]
    assert first["token"] == " Paris"
    assert first["logprob"] == first["top"][0]["logprob"] < 0
    assert len(first["top"]) == 2


def test_structured_output_follows_its_structure(runs: Runs) -> None:
    assert runs.outputs(["Is fire hot?"], choice=["cold", "lukewarm"])[0] in ("cold", "lukewarm")
    assert re.fullmatch("[0-9]{4}", runs.outputs(["When did the war end?"], regex="[0-9]{4}")[0])
    schema = {
        "type": "object",
        "properties": {"city": {"enum": ["Paris", "Rome"]}},
        "required": ["city"],
        "additionalProperties": False,
    }
    assert json.loads(runs.outputs([FRANCE], json_schema=schema, max_tokens=32)[0])["city"] in ("Paris", "Rome")


@pytest.mark.parametrize(
    ("inference", "words"),
    [
        ({"regex": "(["}, "(?s)regex.*unclosed"),
        ({"logprobs": 50}, "logprobs of 50"),
        ({"temperature": 3.0}, "temperature"),
        ({"n": 2, "temperature": 0}, "greedy"),
    ],
)
def test_sampling_that_no_row_could_have_fails_the_stage(runs: Runs, inference: dict[str, Any], words: str) -> None:
    with pytest.raises(ExecutionError, match=words):
        runs([FRANCE], **inference)


def test_concurrent_attempts_share_the_engine(runs: Runs) -> None:
    alone = runs.outputs(QUESTIONS, max_tokens=12)
    folders = [runs.out_dir() for _ in range(4)]
    with ThreadPoolExecutor(4) as threads:
        tasks = [runs.task(QUESTIONS, max_tokens=12) for _ in folders]
        results = list(threads.map(runs.executor.run, tasks, folders))
    for result in results:
        assert [item["output"] for item in result["items"]] == alone


def test_cancelled_attempt_ends_soon_and_leaves_the_engine_to_the_others(runs: Runs) -> None:
    task = runs.task(QUESTIONS, max_tokens=900, ignore_eos=True)
    threading.Timer(2, task.cancelled.set).start()
    started = time.monotonic()
    with pytest.raises(ExecutionError, match="cancelled"):
        runs.executor.run(task, runs.out_dir())
    assert time.monotonic() - started < SOON_SEC
    assert not runs.executor.broken
    assert "Paris" in runs.outputs([FRANCE], max_tokens=12)[0]


def test_adapters_of_one_name_are_told_apart(runs: Runs, make_adapter: Callable[..., str]) -> None:
    plain = runs.outputs([FRANCE], max_tokens=12)
    first = [{"name": "mine", "path": make_adapter("first", seed=1)}]
    second = [{"name": "mine", "path": make_adapter("second", seed=2)}]
    with_first = runs([FRANCE], max_tokens=12, adapters=first)
    with_second = runs.outputs([FRANCE], max_tokens=12, adapters=second)
    outputs = [plain, [with_first["items"][0]["output"]], with_second]
    assert len({str(each) for each in outputs}) == 3
    assert with_first["adapter"] == "mine"
    assert runs.outputs([FRANCE], max_tokens=12) == plain


def test_adapter_that_does_not_fit_is_named_and_the_engine_goes_on(
    runs: Runs, make_adapter: Callable[..., str]
) -> None:
    adapters = [{"name": "alien", "path": make_adapter("alien", seed=1, width=100)}]
    with pytest.raises(ModelError, match="'alien'"):
        runs([FRANCE], adapters=adapters)
    adapters = [{"name": "large", "path": make_adapter("large", seed=1, rank=64)}]
    with pytest.raises(ModelError, match=r"'large'.*64"):
        runs([FRANCE], adapters=adapters)
    assert "Paris" in runs.outputs([FRANCE], max_tokens=12)[0]


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"max_model_length": 1024}, ExecutionError, r"model\.vllm\.max_model_length: vLLM [0-9.]+.* no such"),
        ({"gpu_memory_utilization": 1.0}, RetryableExecutionError, r"1 asks for .* GiB .* are free"),
        ({"max_model_len": -7}, ModelError, "max_model_len"),
    ],
)
def test_engine_that_cannot_be_is_refused_before_loading(
    runs: Runs, change: dict[str, Any], error: type[Exception], words: str
) -> None:
    other = Runs(VllmExecutor(), runs.out_dir())
    started = time.monotonic()
    with pytest.raises(error, match=words):
        other([FRANCE], vllm={**ENGINE, **change})
    assert time.monotonic() - started < SOON_SEC


def test_another_engine_s_stage_is_not_answered_by_this_one(runs: Runs) -> None:
    with pytest.raises(ExecutionError, match="engine of another model"):
        runs([FRANCE], vllm={**ENGINE, "max_model_len": 512})


def test_dead_engine_fails_its_attempts_for_another_try(runs: Runs) -> None:
    runs.outputs([FRANCE], max_tokens=4)  # so that it can be run alone
    task = runs.task(QUESTIONS, max_tokens=900, ignore_eos=True)

    def kill() -> None:
        for child in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):  # one that lived for a moment only
                if "Worker" in "".join(child.cmdline()):
                    child.kill()

    threading.Timer(2, kill).start()
    with pytest.raises(RetryableExecutionError, match="engine died"):
        runs.executor.run(task, runs.out_dir())
    assert runs.executor.broken
    with pytest.raises(RetryableExecutionError):
        runs([FRANCE])
