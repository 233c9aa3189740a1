"""What MLOC costs on top of bare Celery: the same canvas of no-op shards through both, in turn, on one broker.

    python benchmarks/overhead.py [--shards 1000] [--rounds 5] [--json FILE]

Prints a table and, with `--json`, writes the figures. Both workers are alike: prefork, the same number of children,
the same settings, taken from MLOC's configuration. "bare" keeps Celery's own result backend; "bare, canvas backend"
has MLOC's, which stores no results. Only one worker runs at a time. Ratios are what counts, not the seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from scheduler.embedded import LocalWorker, PrivateValkey

HERE = Path(__file__).parent
CHILDREN = 2
LATENCY_RUNS = 30
WAIT_SEC = 300


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shards", type=int, default=1_000, help="no-op shards in one stage")
    parser.add_argument("--rounds", type=int, default=5, help="rounds, each with every contestant once")
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="mloc-bench-", dir="/tmp"))
    valkey = PrivateValkey(folder)
    valkey.start()
    os.environ.update(REDIS_URL=valkey.url, RESULTS_DIR=str(folder / "results"), LOG_LEVEL="WARNING")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH", "")]))
    sys.path.insert(0, str(HERE))
    try:
        figures = measure(options.shards, options.rounds, folder)
    finally:
        valkey.stop()
        shutil.rmtree(folder, ignore_errors=True)
    print_table(figures)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def measure(shards: int, rounds: int, folder: Path) -> dict[str, Any]:
    """Throughput and latency of each contestant, a fresh worker for each in every round, the order alternating."""
    contestants: dict[str, tuple[str, dict[str, str], Callable[[int], float]]] = {
        "bare": ("bare", {}, run_bare),
        "bare, canvas backend": ("bare", {"BENCH_CANVAS_BACKEND": "1"}, run_bare),
        "mloc": ("mloc_tasks", {}, run_mloc),
    }
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    latency: dict[str, list[float]] = {name: [] for name in contestants}
    submit: list[float] = []
    for number in range(rounds):
        names = list(contestants) if number % 2 == 0 else list(reversed(contestants))
        for name in names:
            app, env, run = contestants[name]
            with worker(app, env, folder / "worker.log"):
                run(1)  # the first message waits for the worker to start
                latency[name].extend(run(1) for _ in range(LATENCY_RUNS // rounds or 1))
                seconds[name].append(run(shards))
                if name == "mloc":
                    submit.extend(submit_three_stages() for _ in range(10))
    return {
        "machine": {"cpus": os.cpu_count(), "python": platform.python_version(), "children": CHILDREN},
        "shards": shards,
        "rounds": rounds,
        "shards_per_sec": {name: round(shards / statistics.median(values), 1) for name, values in seconds.items()},
        "seconds": {name: [round(value, 3) for value in values] for name, values in seconds.items()},
        "latency_ms": {name: round(statistics.median(values) * 1000, 1) for name, values in latency.items()},
        "submit_three_stages_ms": round(statistics.median(submit) * 1000, 1),
    }


@contextmanager
def worker(app: str, env: dict[str, str], log: Path) -> Iterator[None]:
    """A worker of one contestant."""
    before = dict(os.environ)
    os.environ.update(env)
    process = LocalWorker(("cpu",), app=app, log=log, concurrency=CHILDREN)
    process.start()
    try:
        yield
        process.check()
    finally:
        process.stop()
        os.environ.clear()
        os.environ.update(before)


def run_mloc(shards: int) -> float:
    """Seconds from submission to the end of an echo stage; one shard is an unsharded stage."""
    from scheduler import submit_yaml

    stage: dict[str, Any] = {"taskType": "echo", "data": {"type": "list", "items": ["x"] * shards}}
    if shards > 1:
        stage["parallel"] = {"enabled": True, "shard_size": 1}
    document = {"apiVersion": "mloc/v1", "kind": "EchoTask", "metadata": {"name": "noop"}, "spec": stage}
    started = time.perf_counter()
    state = submit_yaml(document).wait(WAIT_SEC)
    elapsed = time.perf_counter() - started
    if not state.is_success:
        raise RuntimeError(f"the run ended {state}")
    return elapsed


def run_bare(shards: int) -> float:
    """The same as bare tasks: scatter into a chord, or one task, then a last task that says so."""
    import bare
    from celery import chain

    run_id = uuid.uuid4().hex
    first = bare.scatter.si(run_id, "echo", shards) if shards > 1 else bare.shard.si(run_id, "echo", 0)
    started = time.perf_counter()
    chain(first, bare.finish.si(run_id)).apply_async(queue="cpu")
    if bare.app.backend.client.blpop([f"bare:done:{run_id}"], timeout=WAIT_SEC) is None:
        raise RuntimeError("the bare run did not end")
    return time.perf_counter() - started


def submit_three_stages() -> float:
    """Seconds that `submit_yaml` of a three-stage spec takes; the run is waited for outside of the measurement."""
    from scheduler import submit_yaml

    text = """
apiVersion: mloc/v1
kind: Workflow
metadata: {name: three}
spec:
  taskType: echo
  stages:
    - {name: a, message: one}
    - {name: b, message: two}
    - {name: c, message: three}
"""
    started = time.perf_counter()
    run = submit_yaml(text)
    elapsed = time.perf_counter() - started
    run.wait(WAIT_SEC)
    return elapsed


def print_table(figures: dict[str, Any]) -> None:
    """The figures for people; ratios are of throughput to each bare contestant."""
    rates, latencies = figures["shards_per_sec"], figures["latency_ms"]
    print(f"{figures['shards']} no-op shards, {figures['rounds']} rounds, {figures['machine']}")
    print(f"{'':24}{'shards/s':>10}{'mloc / it':>11}{'one task, submit to end':>26}")
    for name, rate in rates.items():
        print(f"{name:24}{rate:>10.0f}{rates['mloc'] / rate:>11.2f}{latencies[name]:>23.1f} ms")
    print(f"submit_yaml of three stages: {figures['submit_three_stages_ms']} ms (median)")


if __name__ == "__main__":
    main()
