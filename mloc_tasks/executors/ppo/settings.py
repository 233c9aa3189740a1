"""What a PPO stage's `training` and `generation` ask for, with every default filled in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mloc_tasks.errors import ExecutionError
from mloc_tasks.executors.generation.decoding import Decoding

if TYPE_CHECKING:
    from mloc_tasks.spec.model.inference import Generation
    from mloc_tasks.spec.model.training import Training

BATCH_SIZE = 16
STEPS_PER_EPOCH = 2
LORA_LEARNING_RATE = 2e-4
FULL_LEARNING_RATE = 5e-6
MAX_NEW_TOKENS = 64

NOT_SPREAD = "ppo cannot train a model whose layers are spread over several devices"
INSTEAD_OF_SPREADING = "leave device_map_auto out, and each GPU has a process with the whole model, or ask for one GPU"


@dataclass(frozen=True, kw_only=True)
class PpoSettings:
    """Settings of one PPO training. The defaults are those that made a 135M model with LoRA learn in 40 steps.

    Attributes:
        steps: rollouts.
        batch_size: completions of a rollout, of all processes together.
        rows_per_update: completions of one optimizer step. slices: parts of them that are forwarded one by one.
        epochs: passes over a rollout.
        learning_rate: of the policy; value_learning_rate: of the value head, which is far from done when the policy is
            still where it was.
        schedule, schedule_arguments, warmup_steps: of both learning rates, in Transformers' words.
        kl_coef: weight of the KL penalty at the start. adaptive_kl: steer it towards `kl_target` nats a completion.
        target_kl: the passes over a rollout end when the policy has moved 1.5 times as far from the one that sampled
            it, nats a token; None: they never do.
        decoding: how completions are drawn.
        most_tokens: of prompt and completion; longer prompts lose their beginning.
    """

    steps: int
    decoding: Decoding
    learning_rate: float
    seed: int = 0
    batch_size: int = BATCH_SIZE
    rows_per_update: int = BATCH_SIZE // STEPS_PER_EPOCH
    slices: int = 1
    epochs: int = 2
    value_learning_rate: float = 1e-3
    schedule: str = "constant"
    schedule_arguments: Mapping[str, Any] | None = None
    warmup_steps: float = 0
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    adam_epsilon: float = 1e-8
    max_grad_norm: float = 1.0
    gamma: float = 1.0
    lam: float = 0.95
    cliprange: float = 0.2
    cliprange_value: float | None = 0.2
    vf_coef: float = 0.1
    entropy_coef: float = 0.0
    kl_coef: float = 0.05
    adaptive_kl: bool = True
    kl_target: float = 4.0
    kl_horizon: float = 10_000.0
    target_kl: float | None = None
    whiten_advantages: bool = True
    whiten_rewards: bool = False
    score_clip: float | None = None
    missing_eos_penalty: float = 0.0
    length_penalty: float = 0.0
    free_tokens: int = 0
    most_tokens: int | None = None
    gradient_checkpointing: bool = False


AS_GIVEN = frozenset(
    {
        "seed", "batch_size", "value_learning_rate", "weight_decay", "adam_epsilon", "max_grad_norm", "gamma", "lam",
        "cliprange", "cliprange_value", "vf_coef", "entropy_coef", "kl_coef", "adaptive_kl", "kl_target", "kl_horizon",
        "target_kl", "whiten_advantages", "whiten_rewards", "score_clip", "missing_eos_penalty", "length_penalty",
        "free_tokens", "gradient_checkpointing", "warmup_steps",
    }
)  # fmt: skip
"""Keys of `training` that are fields of the settings under the same name."""
RENAMED = {
    "per_device_train_batch_size": "batch_size",
    "ppo_epochs": "epochs",
    "max_seq_length": "most_tokens",
    "max_length": "most_tokens",
    "lr_scheduler_type": "schedule",
    "lr_scheduler_kwargs": "schedule_arguments",
}
"""Those that have another name here."""
KL_HORIZON_ROLLOUTS = 8
"""Rollouts over which the KL penalty's weight changes by a fifth at most, where `kl_horizon` is not given: TRL's old
default, 10,000 completions, would not move it in the few rollouts that a small training has."""


def ppo_settings(training: Training | None, generation: Generation | None, *, rows: int, lora: bool) -> PpoSettings:
    """Settings of a stage.

    `mini_batch_size` is what goes through the model at once and `gradient_accumulation_steps` how many of these make an
    optimizer step, as in TRL's old trainer; without `mini_batch_size` a rollout makes two optimizer steps a pass,
    each in `gradient_accumulation_steps` parts.

    Args:
        rows: prompts of the data; without `steps` a training makes one pass over them (`num_train_epochs`).
        lora: an adapter is trained, which bears and needs larger steps.

    Raises:
        ExecutionError: for what a PPO training cannot do.
    """
    given: dict[str, Any] = {} if training is None else training.model_dump(exclude_none=True)
    found: dict[str, Any] = {name: given[name] for name in AS_GIVEN if name in given}
    found |= {ours: given[theirs] for theirs, ours in RENAMED.items() if theirs in given}
    batch_size = found.setdefault("batch_size", BATCH_SIZE)
    steps = given.get("steps") or given.get("max_steps")
    if steps is None or steps < 1:
        steps = max(1, round(given.get("num_train_epochs", 1) * rows / batch_size))
    slices = given.get("gradient_accumulation_steps", 1)
    mini_batch_size = given.get("mini_batch_size")
    rows_per_update = -(-batch_size // STEPS_PER_EPOCH) if mini_batch_size is None else mini_batch_size * slices
    if not given.get("early_stopping", True):
        found.pop("target_kl", None)
    found.setdefault("kl_horizon", float(KL_HORIZON_ROLLOUTS * batch_size))
    if found.get("warmup_steps") and found.get("schedule", PpoSettings.schedule) == "constant":
        found["schedule"] = "constant_with_warmup"  # Transformers' `constant` leaves the warm-up out
    found["betas"] = (given.get("adam_beta1", 0.9), given.get("adam_beta2", 0.999))
    return PpoSettings(
        **found,
        steps=steps,
        decoding=_decoding(generation, seed=found.get("seed", 0)),
        learning_rate=given.get("learning_rate", LORA_LEARNING_RATE if lora else FULL_LEARNING_RATE),
        rows_per_update=min(rows_per_update, batch_size),
        slices=slices,
    )


def refused(document: Mapping[str, Any]) -> str | None:
    """Why PPO cannot do what a stage's document says, or None; references in it are still text."""
    training, resources = _mapping(document.get("training")), _mapping(document.get("resources"))
    gpus = _mapping(_mapping(resources.get("hardware")).get("gpu")).get("count", 0)
    spread = _mapping(_mapping(document.get("model")).get("config")).get("device_map_auto")
    if spread is True and isinstance(gpus, int) and gpus > 1 and "visible_devices" not in training:
        return f"model.config.device_map_auto: {NOT_SPREAD}; {INSTEAD_OF_SPREADING}"
    return _refused_argument(training)


def _refused_argument(training: Mapping[str, Any]) -> str | None:
    from mloc_tasks.spec.model.training import Training
    from mloc_tasks.spec.training_arguments import PPO_ARGUMENTS

    if training.get("extra"):
        return "training.extra: ppo is MLOC's own loop and has no other trainer to pass arguments on to"
    if training.get("use_cpu"):
        return "training.use_cpu cannot be set: write enforce_cpu: true beside training"
    known = Training.model_fields.keys() | PPO_ARGUMENTS
    unknown = sorted(name for name, value in training.items() if name not in known and value not in (None, False, ""))
    if unknown:
        return f"training.{unknown[0]} is an argument of transformers that ppo, MLOC's own loop, does not follow"
    return None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _decoding(generation: Generation | None, *, seed: int) -> Decoding:
    given: dict[str, Any] = {} if generation is None else generation.model_dump(exclude_none=True)
    if not given.pop("do_sample", True) or given.get("temperature") == 0:
        raise ExecutionError(
            "ppo learns from what differs between samples, and greedy decoding draws always the same",
            hint="set generation.temperature above 0, and leave out do_sample: false",
        )
    return Decoding(
        **{
            "max_tokens": MAX_NEW_TOKENS,
            "temperature": 1.0,
            **given,
            "top_k": max(given.get("top_k", 0), 0),
            "seed": given.get("seed", seed),
        }
    )
