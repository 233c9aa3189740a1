"""What MLOC costs on top of TRL: the same training by a plain TRL script and through MLOC, in turn, in one run.

    python benchmarks/training.py [--methods sft dpo grpo] [--steps 20] [--rounds 2] [--json FILE]

Both train SmolLM2-135M on the same rows, in the same order, with the same arguments, each in a process of its own: the
losses of the last step must be equal, or the steps were not the same. The time is that of the steps, as transformers'
trainer measures it (`train_runtime`); what start-up and saving cost stands beside it. Ratios are what counts.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rewards import short
from stack import MODEL, PeakMemory, Stack, finish, model_directory, peak_mib

DATA = Path(__file__).parents[1] / "templates" / "data"
ROWS = {"sft": "instructions.jsonl", "dpo": "preferences.jsonl", "grpo": "prompts.jsonl"}
BATCH_SIZE = {"sft": 4, "dpo": 4, "grpo": 8}
LEARNING_RATE = {"sft": 2e-5, "dpo": 1e-4, "grpo": 1e-4}
LORA = {"r": 16, "alpha": 32, "target_modules": "all-linear"}
WITH_LORA = ("dpo", "grpo")
COMPLETIONS, COMPLETION_TOKENS = 4, 16  # of GRPO
MAX_LENGTH = 512
SEED = 42


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--plain", choices=list(ROWS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.plain:
        print(json.dumps(plain(options.plain, options.steps)))
        return
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    figures: dict[str, Any] = {
        "machine": {"cpus": os.cpu_count(), "python": platform.python_version()},
        "steps": options.steps,
        "methods": {method: measure(method, options.steps, options.rounds) for method in options.methods},
    }
    print_table(figures)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def measure(method: str, steps: int, rounds: int) -> dict[str, list[dict[str, float]]]:
    """What each contestant took, round by round, the plain script first and last in turn."""
    measured: dict[str, list[dict[str, float]]] = {"plain": [], "mloc": []}
    for number in range(rounds):
        for contestant in ("plain", "mloc") if number % 2 == 0 else ("mloc", "plain"):
            run = run_plain if contestant == "plain" else run_mloc
            measured[contestant].append(run(method, steps))
    return measured


def rows(method: str) -> list[dict[str, Any]]:
    """The rows as conversations."""
    with (DATA / ROWS[method]).open(encoding="utf-8") as lines:
        given = [json.loads(line) for line in lines]
    roles = {"prompt": "user", "completion": "assistant", "chosen": "assistant", "rejected": "assistant"}
    return [
        {name: [{"role": roles[name], "content": text}] for name, text in _renamed(row).items() if name in roles}
        for row in given
    ]


def _renamed(row: dict[str, str]) -> dict[str, str]:
    return {{"instruction": "prompt", "response": "completion"}.get(name, name): text for name, text in row.items()}


def run_plain(method: str, steps: int) -> dict[str, float]:
    """The plain script, in a process of its own."""
    command = [sys.executable, __file__, "--plain", method, "--steps", str(steps)]
    started = time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return {**figures, "whole_sec": time.perf_counter() - started}


def plain(method: str, steps: int) -> dict[str, float]:
    """Train as TRL's own examples do."""
    import torch
    import trl
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer

    location = model_directory()
    model = AutoModelForCausalLM.from_pretrained(location, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(location)
    tokenizer.pad_token = "<|endoftext|>"  # by default it is the token that ends an answer
    trainers = {
        "sft": (trl.SFTConfig, trl.SFTTrainer),
        "dpo": (trl.DPOConfig, trl.DPOTrainer),
        "grpo": (trl.GRPOConfig, trl.GRPOTrainer),
    }
    config_class, trainer_class = trainers[method]
    own: dict[str, Any] = {"max_length": MAX_LENGTH}
    if method == "grpo":
        own = {"num_generations": COMPLETIONS, "max_completion_length": COMPLETION_TOKENS}
    lora = LoraConfig(
        r=LORA["r"], lora_alpha=LORA["alpha"], target_modules=LORA["target_modules"], task_type="CAUSAL_LM"
    )
    with tempfile.TemporaryDirectory() as folder:
        config = config_class(
            output_dir=folder,
            max_steps=steps,
            per_device_train_batch_size=BATCH_SIZE[method],
            learning_rate=LEARNING_RATE[method],
            seed=SEED,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            dataloader_pin_memory=False,
            logging_steps=1,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            **own,
        )
        trainer = trainer_class(
            model=model,
            args=config,
            train_dataset=Dataset.from_list(rows(method)),
            processing_class=tokenizer,
            **({"peft_config": lora} if method in WITH_LORA else {}),
            **({"reward_funcs": short} if method == "grpo" else {}),
        )
        outcome = trainer.train()
        trainer.save_model(folder)
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return {"steps_sec": outcome.metrics["train_runtime"], "loss": losses[-1], "peak_mib": peak_mib(os.getpid())}


def run_mloc(method: str, steps: int) -> dict[str, float]:
    """The same training as a run, on a worker of its own."""
    training: dict[str, Any] = {
        "steps": steps,
        "batch_size": BATCH_SIZE[method],
        "learning_rate": LEARNING_RATE[method],
        "seed": SEED,
    }
    spec: dict[str, Any] = {
        "taskType": method,
        "model": {"source": {"type": "package", "identifier": MODEL}},
        "data": {"type": "file", "url": str(DATA / ROWS[method])},
        "training": training,
    }
    if method in WITH_LORA:
        spec["lora"] = LORA
    if method == "grpo":
        training |= {"num_generations": COMPLETIONS, "reward_functions": ["rewards:short"]}
        spec["generation"] = {"max_new_tokens": COMPLETION_TOKENS, "temperature": 1.0}
    else:
        training["max_seq_length"] = MAX_LENGTH
    document = {
        "apiVersion": "mloc/v1",
        "kind": "TrainingTask",
        "metadata": {"name": f"benchmark-{method}"},
        "spec": spec,
    }
    with Stack(("cpu",)) as stack, PeakMemory(stack) as peak:
        started = time.perf_counter()
        run = finish(document)
        whole = time.perf_counter() - started
        result = run.result()
        last = _last_step(result["metrics_url"])
    return {"steps_sec": result["train_seconds"], "loss": last["loss"], "peak_mib": peak.mib, "whole_sec": whole}


def _last_step(metrics_url: str) -> dict[str, float]:
    from mloc_tasks.artifacts import open_url

    with open_url(metrics_url) as lines:
        last: dict[str, float] = json.loads(lines.read().splitlines()[-1])
    return last


def print_table(figures: dict[str, Any]) -> None:
    """The figures for people; ratios are to the plain script."""
    print(f"{figures['steps']} steps, {figures['machine']}")
    print(f"{'':12}{'s of steps':>11}{'of plain':>9}{'peak MiB':>10}{'of plain':>9}{'s in all':>10}{'last loss':>11}")
    for method, measured in figures["methods"].items():
        base = {name: statistics.median(run[name] for run in measured["plain"]) for name in measured["plain"][0]}
        for contestant, runs in measured.items():
            mid = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
            print(
                f"{method + ' ' + contestant:12}{mid['steps_sec']:>11.1f}{mid['steps_sec'] / base['steps_sec']:>9.2f}"
                f"{mid['peak_mib']:>10.0f}{mid['peak_mib'] / base['peak_mib']:>9.2f}{mid['whole_sec']:>10.1f}"
                f"{mid['loss']:>11.4f}"
            )


if __name__ == "__main__":
    main()
