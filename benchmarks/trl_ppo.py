"""PPO by TRL 1.12.0, the last release that has it: the opponent of `ppo.py`, which runs it by a Python of its own.

    python benchmarks/trl_ppo.py MODEL_DIRECTORY PROMPTS.jsonl SETTINGS_AS_JSON

Prints one JSON document. TRL takes no reward of texts, so that `TextReward` stands for a reward model and decodes what
it is given; TRL's PPO wants a value model of its own and, without an adapter, a third copy as the reference.
"""

from __future__ import annotations

import itertools
import json
import os
import resource
import sys
import tempfile
import time
from types import SimpleNamespace
from typing import Any

import torch

from mloc_tasks.rewards import vader

ASSISTANT = "<|im_start|>assistant\n"


class TextReward(torch.nn.Module):
    """Looks like a reward model to TRL's `get_reward`: a backbone whose last hidden state is the score already."""

    base_model_prefix = "backbone"

    def __init__(self, tokenizer: Any) -> None:
        super().__init__()
        self.score = torch.nn.Identity()
        self.backbone = self._read
        self._tokenizer = tokenizer
        self.tokens: list[int] = []
        """Of the completions of each call."""

    def _read(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **_: Any) -> Any:
        rows = [ids[mask].tolist() for ids, mask in zip(input_ids, attention_mask.bool(), strict=True)]
        texts = [self._tokenizer.decode(row).rpartition(ASSISTANT)[2] for row in rows]
        self.tokens.append(sum(len(self._tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts))
        answers = [text.removesuffix(self._tokenizer.eos_token) for text in texts]
        scores = torch.tensor(vader(texts, answers), dtype=torch.float32)
        hidden = scores[:, None, None].expand(-1, input_ids.shape[1], 1)
        return SimpleNamespace(hidden_states=[hidden])


def _text(tokenizer: Any, chat: list[dict[str, str]]) -> str:
    return str(tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True))


def main() -> None:
    directory, prompts, given = sys.argv[1:]
    settings = json.loads(given)
    from datasets import Dataset
    from transformers import (
        AutoModelForCausalLM,
        AutoModelForSequenceClassification,
        AutoTokenizer,
        TrainerCallback,
        set_seed,
    )
    from trl.experimental.ppo import PPOConfig, PPOTrainer

    set_seed(settings["seed"])
    tokenizer = AutoTokenizer.from_pretrained(directory, padding_side="left")
    tokenizer.pad_token = "<|endoftext|>"  # masks are made of it: it must not be the token that ends an answer
    with open(prompts, encoding="utf-8") as lines:
        chats = [[{"role": "user", "content": json.loads(line)["prompt"]}] for line in lines]
    ids = [tokenizer(_text(tokenizer, chat), add_special_tokens=False)["input_ids"] for chat in chats]
    policy, reference = (AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32) for _ in range(2))
    value = AutoModelForSequenceClassification.from_pretrained(directory, num_labels=1, dtype=torch.float32)
    reward = TextReward(tokenizer)
    ends: list[float] = []
    figures: list[dict[str, float]] = []

    class Watch(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            ends.append(time.perf_counter())

        def on_log(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            logs = given["logs"]
            if "objective/scores" in logs:
                figures.append({"reward": logs["objective/scores"], "kl": logs["objective/kl"]})

    with tempfile.TemporaryDirectory() as folder:
        config = PPOConfig(
            output_dir=folder,
            per_device_train_batch_size=settings["batch_size"] // 2,
            gradient_accumulation_steps=2,
            num_mini_batches=2,
            num_ppo_epochs=settings["epochs"],
            total_episodes=settings["batch_size"] * settings["steps"],
            response_length=settings["tokens"],
            local_rollout_forward_batch_size=settings["batch_size"],
            learning_rate=settings["learning_rate"],
            stop_token="eos",
            temperature=1.0,
            num_sample_generations=0,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            logging_steps=1,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            seed=settings["seed"],
        )
        trainer = PPOTrainer(
            args=config,
            processing_class=tokenizer,
            model=policy,
            ref_model=reference,
            reward_model=reward,
            value_model=value,
            train_dataset=Dataset.from_dict({"input_ids": ids}),
            callbacks=[Watch()],
        )
        trainer.train()
    seconds = [end - begin for begin, end in itertools.pairwise(ends)]  # the first step warms up
    document = {
        "seconds_per_step": sum(seconds) / len(seconds),
        "tokens_per_second": sum(reward.tokens[1 : len(ends)]) / sum(seconds),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "steps": figures,
    }
    sys.stdout.flush()
    os.write(1, f"\n{json.dumps(document)}\n".encode())


if __name__ == "__main__":
    main()
