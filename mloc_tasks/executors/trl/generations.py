"""What makes a GRPO training that goes on from a checkpoint the same as one that was never interrupted."""

from __future__ import annotations

import math
from typing import Any

from transformers import TrainerCallback


class WholeGenerations(TrainerCallback):
    """Checkpoints are made between two generations, and the prompts of earlier passes over the data are skipped.

    Completions serve several steps with `num_iterations` or `steps_per_generation`; those that are still to be learned
    from are in no checkpoint.

    Args:
        trainer: a GRPOTrainer.
    """

    def __init__(self, trainer: Any) -> None:
        forwards = trainer.args.steps_per_generation * trainer.num_iterations
        accumulated = trainer.args.gradient_accumulation_steps
        self._every = math.lcm(forwards, accumulated) // accumulated
        self._due = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        state.num_input_tokens_seen = 0  # the metrics file adds those of before
        passes = int(state.epoch or 0)
        sampler = more["train_dataloader"].batch_sampler
        while not hasattr(sampler, "mini_repeat_count"):
            sampler = sampler.batch_sampler if hasattr(sampler, "batch_sampler") else sampler.sampler
        for _ in range(passes if sampler.shuffle else 0):
            next(iter(sampler))  # each pass draws its order from where the one before left off

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        return self._kept(state, control)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        return self._kept(state, control)

    def _kept(self, state: Any, control: Any) -> Any:
        self._due |= control.should_save
        whole = state.global_step % self._every == 0
        control.should_save = self._due and whole and state.global_step < state.max_steps
        if control.should_save:
            self._due = False
        return control
