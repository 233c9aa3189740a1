"""A language model of two layers over some letters, and what a PPO training of it needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

from mloc_tasks.executors.generation.decoding import Decoding
from mloc_tasks.executors.ppo.group import Group
from mloc_tasks.executors.ppo.learner import Learner
from mloc_tasks.executors.ppo.policy import Policy
from mloc_tasks.executors.ppo.prompts import Prompt
from mloc_tasks.executors.ppo.rollout import Sampler
from mloc_tasks.executors.ppo.settings import PpoSettings
from mloc_tasks.executors.ppo.trainer import Took, train

LETTERS = "abcdefgh"
EOS = len(LETTERS)
PAD = EOS + 1
VOCABULARY = PAD + 1
PROMPTS = [Prompt([LETTERS.index(letter) for letter in text], text) for text in ("a", "bc", "def", "gh", "cab", "hhh")]


class Letters:
    """Decodes; a token is a letter."""

    chat_template = None

    def decode(self, tokens: Sequence[int], **_: Any) -> str:
        return "".join(LETTERS[token] for token in tokens if token < len(LETTERS))

    def __call__(self, text: str) -> dict[str, list[int]]:
        return {"input_ids": [LETTERS.index(letter) for letter in text]}


def tiny_model(seed: int = 0, **config: Any) -> Any:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    made = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        bos_token_id=None,
        eos_token_id=EOS,
        pad_token_id=None,
        **config,
    )
    return LlamaForCausalLM(made)


def adapted(model: Any, seed: int = 0) -> Any:
    """With a new LoRA adapter."""
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    return get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM"))


def settings_of(**changes: Any) -> PpoSettings:
    """Few short completions of a large learning rate."""
    changed = {key: changes.pop(key) for key in ("max_tokens", "temperature", "top_k") if key in changes}
    decoding = Decoding(**{"max_tokens": 6, "temperature": 1.0, **changed})
    settings = PpoSettings(steps=4, batch_size=8, rows_per_update=4, learning_rate=3e-3, decoding=decoding)
    return replace(settings, **changes)


def sampler_of(policy: Policy, settings: PpoSettings) -> Sampler:
    return Sampler(policy=policy, tokenizer=Letters(), decoding=settings.decoding, end_tokens=(EOS,), pad_token=PAD)


def count_of_d(prompts: Sequence[Any], completions: Sequence[str], **_: Any) -> list[float]:
    """The reward of most tests: d's among the letters."""
    return [float(text.count("d")) for text in completions]


def learner_of(model: Any, settings: PpoSettings, group: Group = Group(), *, float16: bool = False) -> Learner:  # noqa: B008
    import torch

    policy = Policy(
        model,
        new_adapter=hasattr(model, "peft_config"),
        temperature=settings.decoding.temperature,
        autocast=partial(torch.autocast, "cpu", torch.float16) if float16 else nullcontext,
        exact=not float16,
        checkpointing=settings.gradient_checkpointing,
    )
    return Learner(policy, settings, group=group, float16=float16)


def curve_of(
    learner: Learner,
    settings: PpoSettings,
    *,
    scorer: Callable[..., list[float]] = count_of_d,
    group: Group = Group(),  # noqa: B008
    after_step: Callable[[int], None] = lambda step: None,
) -> list[dict[str, float]]:
    """What every step measured."""
    curve: list[dict[str, float]] = []

    def note(step: int, values: Mapping[str, float], took: Took) -> None:
        assert took.sec >= took.rollout_sec
        curve.append(dict(values))
        after_step(step)

    sampler = sampler_of(learner.policy, settings)
    train(learner, sampler, PROMPTS, scorer, settings, group=group, after_step=note)
    return curve
