"""What our PPO learns, how fast and in how much memory, beside TRL 1.12.0's, the last release that has one.

    python benchmarks/ppo.py [--seeds 0 1 2] [--steps 40] [--full-steps 6] [--trl PYTHON --trl-steps 6] [--json FILE]

SmolLM2-135M writes 24 tokens to each of 16 prompts a step, and VADER's compound score of what it wrote is the reward.
Ours runs with its defaults (LoRA: one backbone is policy, value and, the adapter switched off, reference) as a run on a
worker, and with `--full-steps` also with all weights trained, as TRL's. `--trl` is the Python of an environment that
has trl==1.12.0 and MLOC; batch, tokens and passes over a rollout are the same there. Tokens per second leave out the
first step.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from stack import MODEL, PeakMemory, Stack, finish, model_directory

from mloc_tasks.artifacts import open_url

PROMPTS = Path(__file__).parents[1] / "templates" / "data" / "prompts.jsonl"
BATCH_SIZE, TOKENS, EPOCHS = 16, 24, 2
TRL_LEARNING_RATE = 3e-6  # TRL's default
ENDS = 10  # steps at the beginning and at the end whose mean rewards are compared


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--full-steps", type=int, default=0, help="steps with all weights trained; 0: none")
    parser.add_argument("--trl", type=Path, help="Python of an environment with trl==1.12.0")
    parser.add_argument("--trl-steps", type=int, default=6)
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    runs: dict[str, Callable[[], dict[str, Any]]] = {
        f"ours, LoRA, seed {seed}": partial(run_ours, seed, options.steps) for seed in options.seeds
    }
    if options.full_steps:
        runs["ours, full"] = partial(run_ours, 0, options.full_steps, finetuning_type="full")
    if options.trl:
        runs["TRL 1.12.0, full"] = partial(run_trl, options.trl, options.trl_steps)
    contestants: dict[str, Any] = {}
    figures = {"machine": {"cpus": os.cpu_count(), "python": platform.python_version()}, "contestants": contestants}
    for name, run in runs.items():
        contestants[name] = run()
        if options.json:  # after each: a seed takes a quarter of an hour on two cores
            options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    print_table(figures)


def run_ours(seed: int, steps: int, **training: Any) -> dict[str, Any]:
    """One training as a run; its figures step by step."""
    spec = {
        "taskType": "ppo",
        "model": {"source": {"type": "package", "identifier": MODEL}},
        "data": {"type": "file", "url": str(PROMPTS)},
        "reward_model": {"type": "function", "identifier": "vader"},
        "training": {"steps": steps, "batch_size": BATCH_SIZE, "ppo_epochs": EPOCHS, "seed": seed, **training},
        "generation": {"max_new_tokens": TOKENS, "temperature": 1.0},
    }
    header = {"apiVersion": "mloc/v1", "kind": "PPOTask", "metadata": {"name": "benchmark-ppo"}}
    with Stack(("cpu",)) as stack, PeakMemory(stack) as peak:
        result = finish({**header, "spec": spec}).result()
        with open_url(result["metrics_url"]) as lines:
            rows = [json.loads(line) for line in lines.read().splitlines()]
    return {
        "seconds_per_step": result["performance"]["step_sec"],
        "tokens_per_second": result["performance"]["tokens_per_sec"],
        "peak_mib": peak.mib,
        "steps": [{"reward": row["mean_reward"], "kl": row["kl"]} for row in rows],
    }


def run_trl(python: Path, steps: int) -> dict[str, Any]:
    """TRL's, in its own environment."""
    settings = {
        "batch_size": BATCH_SIZE,
        "tokens": TOKENS,
        "epochs": EPOCHS,
        "steps": steps,
        "learning_rate": TRL_LEARNING_RATE,
        "seed": 0,
    }
    script = Path(__file__).with_name("trl_ppo.py")
    command = [str(python), str(script), model_directory(), str(PROMPTS), json.dumps(settings)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def print_table(figures: dict[str, Any]) -> None:
    """The figures for people; ratios are to TRL's where it was run."""
    print(f"batch {BATCH_SIZE}, {TOKENS} tokens, {EPOCHS} passes, {figures['machine']}")
    head = f"{'':24}{'steps':>6}{'s/step':>8}{'tokens/s':>9}{'of TRL':>7}{'peak MiB':>9}{'of TRL':>7}"
    print(f"{head}{'first':>8}{'last':>7}{'KL':>7}   (mean reward of the first and last {ENDS} steps; highest KL)")
    trl = figures["contestants"].get("TRL 1.12.0, full")
    for name, each in figures["contestants"].items():
        steps = each["steps"]
        rewards = [step["reward"] for step in steps]
        ratios = [each[key] / trl[key] if trl else float("nan") for key in ("tokens_per_second", "peak_mib")]
        print(
            f"{name:24}{len(steps):>6}{each['seconds_per_step']:>8.1f}{each['tokens_per_second']:>9.1f}{ratios[0]:>7.2f}"
            f"{each['peak_mib']:>9.0f}{ratios[1]:>7.2f}{statistics.mean(rewards[:ENDS]):>8.2f}"
            f"{statistics.mean(rewards[-ENDS:]):>7.2f}{max(step['kl'] for step in steps):>7.2f}"
        )


if __name__ == "__main__":
    main()
