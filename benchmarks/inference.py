"""What MLOC costs on top of a vLLM engine: the same prompts through a bare script and through MLOC, in one run.

    python benchmarks/inference.py [--prompts 512] [--tokens 24] [--rounds 1] [--json FILE]

Every contestant generates the same number of tokens from prompts of the same lengths, none of them seen before, so that
no prefix cache helps. The bare script (`bare_engine.py`) calls `AsyncLLM` with all prompts at once. MLOC's worker is
`celery -A mloc_tasks worker -P threads -c 16`; the time is from submission to the end of the run. Both engines are
warm, have the same arguments, and take turns: while one is measured, the other's processes are stopped. A contestant's
ratio is to the bare script right before and right after it, because the speed of a machine drifts. Ratios are what
counts, not the seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, Self

import psutil
from stack import MODEL, Stack, model_directory

from mloc_tasks.executors.vllm.environment import computes_half_precision
from scheduler import Run, submit_yaml

ENGINE = {
    "max_model_len": 1024,
    "enforce_eager": True,
    "dtype": "bfloat16" if computes_half_precision() else "float32",
    "max_num_seqs": 256,
    "max_num_batched_tokens": 4096,
    "kv_cache_memory_bytes": 2 << 30,
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
    options = parser.parse_args()
    figures = measure(options.prompts, options.tokens, options.rounds)
    print_table(figures)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def fresh_prompts(number: int) -> list[str]:
    """Prompts that no engine has seen, of nearly the same length in tokens."""
    return [f"Note {next(_prompt):05d}: tell me one thing about {TOPICS[i % len(TOPICS)]}." for i in range(number)]


def measure(prompts: int, tokens: int, rounds: int) -> dict[str, Any]:
    """Tokens per second of each contestant and its ratio to the bare script, round by round."""
    contestants: dict[str, Callable[[], float]] = {
        "one stage": lambda: timed(stage(fresh_prompts(prompts), tokens)),
        "8 shards": lambda: timed(
            stage(fresh_prompts(prompts), tokens, parallel={"enabled": True, "shard_size": prompts // 8})
        ),
        "64 runs, 16 clients": lambda: many_clients(prompts, tokens),
    }
    bare_rates: list[float] = []
    rates: dict[str, list[float]] = {name: [] for name in contestants}
    ratios: dict[str, list[float]] = {name: [] for name in contestants}
    figures: dict[str, Any] = {}
    for number in range(rounds):
        with EngineStack() as stack, BareEngine() as bare:
            stack.warm_up(tokens)
            bare.seconds(fresh_prompts(64), tokens)

            def bare_rate(stack: EngineStack = stack, bare: BareEngine = bare) -> float:
                with stopped(stack.hosts()):
                    return prompts * tokens / bare.seconds(fresh_prompts(prompts), tokens)

            bare_rates.append(bare_rate())
            for name, seconds in contestants.items():
                with stopped([bare.process]):
                    rates[name].append(prompts * tokens / seconds())
                bare_rates.append(bare_rate())
                ratios[name].append(rates[name][-1] / statistics.mean(bare_rates[-2:]))
            if number == 0:
                with stopped([bare.process]):
                    figures["first_token_ms"] = [round(1_000 * seconds, 1) for seconds in one_after_the_other()]
                with stopped(stack.hosts()):
                    alone = [bare.seconds(fresh_prompts(1), 1) for _ in range(10)]
                figures["bare_first_token_ms"] = round(1_000 * statistics.median(alone), 1)
        if number == 0:
            with EngineStack() as stack:
                stack.warm_up(tokens)
                figures["crash"] = stack.crash(prompts // 4, tokens)
    return {
        "machine": {"cpus": os.cpu_count(), "python": platform.python_version()},
        "prompts": prompts,
        "tokens": tokens,
        "rounds": rounds,
        "tokens_per_sec": {
            name: [round(rate, 1) for rate in each] for name, each in {"bare": bare_rates, **rates}.items()
        },
        "ratios": {name: [round(ratio, 3) for ratio in each] for name, each in ratios.items()},
        **figures,
    }


@contextmanager
def stopped(processes: Iterable[psutil.Process]) -> Iterator[None]:
    """These processes and all below them do nothing within the block."""
    trees = [each for process in processes for each in (process, *process.children(recursive=True))]
    for process in trees:
        process.suspend()
    try:
        yield
    finally:
        for process in trees:
            process.resume()


class BareEngine:
    """The engine without MLOC, in a process that lives within the block."""

    def __enter__(self) -> Self:
        arguments = {**ENGINE, "model": model_directory()}
        command = [sys.executable, str(Path(__file__).with_name("bare_engine.py")), json.dumps(arguments)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.process = psutil.Process(self._process.pid)
        self._answer()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=WAIT_SEC)

    def seconds(self, prompts: list[str], tokens: int) -> float:
        """What it takes for all of them at once."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([tokens, prompts]) + "\n")
        self._process.stdin.flush()
        return float(self._answer())

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the bare engine has ended")
        return line


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
    """The figures for people; ratios are to the bare script around each contestant's turn."""
    print(f"{figures['prompts']} prompts, {figures['tokens']} tokens each, {figures['machine']}")
    print(f"{'':24}{'tokens/s':>10}{'of bare':>9}   rounds")
    for name, rates in figures["tokens_per_sec"].items():
        ratios = figures["ratios"].get(name, [1.0])
        print(f"{name:24}{statistics.median(rates):>10.0f}{statistics.median(ratios):>9.2f}   {rates} {ratios}")
    later = figures["first_token_ms"][1:]
    print(
        f"claim to first token stored, 2nd to 10th run: {statistics.median(later)} ms median, {max(later)} ms most; "
        f"one token of the bare engine: {figures['bare_first_token_ms']} ms"
    )
    print(f"host killed in the middle: {figures['crash']}")


if __name__ == "__main__":
    main()
