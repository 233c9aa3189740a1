"""Many randomized runs on one stack: `python -m tests.chaos.run_many --seed 1 --runs 100`.

Each run's seed decides which faults strike, when and whom; `--seed S --runs 1` plays one of them again. Fails at the
end when any run did; the logs of a failed run's workers go to `--keep`.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from tests.chaos.driver import Script, Verdict, play
from tests.chaos.faults import FAULTS
from tests.chaos.pipeline import PIPELINE
from tests.chaos.stack import Stack


def run_many(
    seed: int, runs: int, *, kinds: Sequence[str], keep: Path | None = None, most_sec: float = float("inf")
) -> list[Verdict]:
    """The verdicts of `runs` runs with the seeds from `seed` on. A failed run's stack is replaced by a new one."""
    verdicts: list[Verdict] = []
    end = time.monotonic() + most_sec
    with ExitStack() as stacks:
        stack = stacks.enter_context(Stack())
        for number in range(seed, seed + runs):
            verdict = play(stack, Script.of_seed(number, total=PIPELINE.total, kinds=kinds))
            print(verdict, flush=True)
            verdicts.append(verdict)
            if verdict.problems:
                if keep is not None:
                    _keep_logs(stack, keep / f"seed-{number}")
                stacks.close()
                stack = stacks.enter_context(Stack())
            if time.monotonic() > end:
                break
    return verdicts


def _keep_logs(stack: Stack, target: Path) -> None:
    for name in stack.names:
        log = target / stack.log(name).parent.name / "worker.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(stack.log(name), log)


def summary(verdicts: Sequence[Verdict]) -> str:
    """How many passed, and the time lost by fault."""
    failed = [verdict.script.seed for verdict in verdicts if verdict.problems]
    repaired = [verdict.script.seed for verdict in verdicts if verdict.repairs]
    lines = [
        f"{len(verdicts) - len(failed)} of {len(verdicts)} runs passed"
        + (f"; failed: {failed}" if failed else "")
        + (f"; needed reconcile: {repaired}" if repaired else ""),
        f"{'fault':20} {'struck':>6} {'shards':>6} {'median':>7} {'most':>7}   seconds until a stopped shard ran again",
    ]
    for fault in FAULTS:
        struck = sum(strike.fault == fault for verdict in verdicts for strike in verdict.strikes)
        lost = [seconds for verdict in verdicts for name, seconds in verdict.lost if name == fault]
        times = f"{statistics.median(lost):7.2f} {max(lost):7.2f}" if lost else f"{'-':>7} {'-':>7}"
        lines.append(f"{fault:20} {struck:6} {len(lost):6} {times}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="seed of the first run; each further one has the next")
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--faults", default=",".join(FAULTS), help="comma-separated; default: all")
    parser.add_argument("--keep", type=Path, help="where the logs of failed runs go")
    options = parser.parse_args()
    verdicts = run_many(options.seed, options.runs, kinds=options.faults.split(","), keep=options.keep)
    print(summary(verdicts))
    sys.exit(any(verdict.problems for verdict in verdicts))


if __name__ == "__main__":
    main()
