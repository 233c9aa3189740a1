"""What `training` says, in the words of TRL 1.16: one table for each method.

Arguments of TRL's configs and of transformers' TrainingArguments go through as they stand in the spec, and so does
`training.extra`.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mloc_tasks.errors import ExecutionError
from mloc_tasks.executors.training.checkpoints import Schedule
from mloc_tasks.executors.training.given import given_arguments
from mloc_tasks.executors.training.precision import Precision

if TYPE_CHECKING:
    from mloc_tasks.spec import StageSpec


@dataclass(frozen=True, kw_only=True)
class Method:
    """A method of TRL.

    Attributes:
        label: what log lines call it.
        config, trainer: names of its classes in `trl`.
        names: our name in `training` -> TRL's argument.
        generation_names: our name in `generation` -> TRL's argument.
        shown: the metrics that log lines show.
        lora_learning_rate: the default where an adapter is trained: about ten times that of all weights, by "LoRA
            Without Regret" (Schulman et al. 2025), which TRL's documentation follows.
        too_long: why rows are left out at `training.max_seq_length`.
    """

    label: str
    config: str
    trainer: str
    names: Mapping[str, str]
    generation_names: Mapping[str, str] = field(default_factory=dict)
    shown: tuple[str, ...]
    lora_learning_rate: float
    too_long: str = "the prompt alone fills training.max_seq_length"


TRAINING: Mapping[str, str] = {
    "learning_rate": "learning_rate",
    "num_train_epochs": "num_train_epochs",
    "steps": "max_steps",
    "batch_size": "per_device_train_batch_size",
    "gradient_accumulation_steps": "gradient_accumulation_steps",
    "max_grad_norm": "max_grad_norm",
    "seed": "seed",
}
"""What all methods share."""

SFT = Method(
    label="SFT",
    config="SFTConfig",
    trainer="SFTTrainer",
    names={**TRAINING, "max_seq_length": "max_length"},
    shown=("loss", "mean_token_accuracy", "learning_rate"),
    lora_learning_rate=2e-4,
)
DPO = Method(
    label="DPO",
    config="DPOConfig",
    trainer="DPOTrainer",
    names={**TRAINING, "max_seq_length": "max_length"},
    shown=("loss", "rewards/margins", "rewards/accuracies", "learning_rate"),
    lora_learning_rate=1e-5,
)
REWARD = Method(
    label="Reward",
    config="RewardConfig",
    trainer="RewardTrainer",
    names={**TRAINING, "max_seq_length": "max_length"},
    shown=("loss", "accuracy", "margin", "learning_rate"),
    lora_learning_rate=1e-3,
    too_long="prompt and answer are longer than training.max_seq_length, by default 1024 tokens",
)
GRPO = Method(
    label="GRPO",
    config="GRPOConfig",
    trainer="GRPOTrainer",
    names={**TRAINING, "entropy_coef": "entropy_coef"},
    generation_names={
        "max_tokens": "max_completion_length",
        "temperature": "temperature",
        "top_p": "top_p",
        "top_k": "top_k",
        "min_p": "min_p",
        "repetition_penalty": "repetition_penalty",
    },
    shown=("reward", "reward_std", "kl", "loss", "completions/mean_length"),
    lora_learning_rate=1e-5,
)

OURS = frozenset(
    {
        *("bf16", "fp16"),  # precision
        *("save_strategy", "save_steps", "save_total_limit"),  # checkpoints
        *("logging_steps", "logging_strategy", "logging_first_step", "report_to", "disable_tqdm"),  # metrics
    }
)
"""TRL's arguments that a part of ours reads out of the spec."""

_NO_EVALUATION = "a training stage has no data to evaluate on; add a stage of task type `evaluate`"
_NO_HUB = "results go to the store of the run: see output"
REFUSED: Mapping[str, str] = {
    "output_dir": _NO_HUB,
    "push_to_hub": _NO_HUB,
    "resume_from_checkpoint": "write checkpoint: {load: {path: ...}}",
    "save_only_model": "nothing could go on from such a checkpoint; training.save_model keeps the trained model",
    "eval_strategy": _NO_EVALUATION,
    "eval_on_start": _NO_EVALUATION,
    "do_eval": _NO_EVALUATION,
    "do_predict": _NO_EVALUATION,
    "load_best_model_at_end": _NO_EVALUATION,
    "model_init_kwargs": "write model: {transformers: {...}}",
    "trust_remote_code": "write model: {source: {trust_remote_code: true}}",
    "use_cpu": "write enforce_cpu: true beside training",
    "no_cuda": "write enforce_cpu: true beside training",
}
"""TRL's arguments that make no sense in a stage -> what to do instead."""

_SILENT = (None, False, "no", "none", "")


def refusal(document: Mapping[str, Any]) -> str | None:
    """Why a stage's `training` cannot be, or None; known from its document alone."""
    training = document.get("training")
    if not isinstance(training, Mapping):
        return None
    for name, instead in REFUSED.items():
        if training.get(name) not in _SILENT:
            return f"training.{name} cannot be set: {instead}"
    if training.get("save_strategy") == "best":
        return f"training.save_strategy: best cannot be: {_NO_EVALUATION}"
    return None


def config_for(
    method: Method, spec: StageSpec, *, precision: Precision, adapts: bool, folder: str, schedule: Schedule
) -> Any:
    """The method's TRL config. Raises ExecutionError where TRL does not take what the spec says.

    Args:
        adapts: an adapter is trained.
        folder: where the trainer writes its checkpoints; schedule: when.
    """
    values = {
        "learning_rate": method.lora_learning_rate if adapts else None,
        "gradient_checkpointing": precision.device == "cuda",  # memory is what a GPU lacks, time what a CPU lacks
        "logging_nan_inf_filter": False,  # else a loss that is no number would look like the mean of the others
        **_given(method, spec),
        "bf16": precision.compute == "bfloat16",
        "fp16": precision.compute == "float16",
        "use_cpu": precision.device == "cpu",
        "dataloader_pin_memory": precision.device == "cuda",
        "output_dir": folder,
        "logging_strategy": "steps",
        "logging_steps": 1,  # each step is in the metrics file; how often a log line shows one is MetricsLog's
        "report_to": [],
        "disable_tqdm": True,
        "save_strategy": "epoch" if schedule.epochs else "steps" if schedule.steps else "no",
        **({"save_steps": schedule.steps} if schedule.steps else {}),
    }
    trl: Any = importlib.import_module("trl")
    try:
        return getattr(trl, method.config)(**{name: value for name, value in values.items() if value is not None})
    except (TypeError, ValueError, NotImplementedError) as error:
        raise ExecutionError(f"TRL's {method.config} refuses training: {error}") from error


def _given(method: Method, spec: StageSpec) -> dict[str, Any]:
    """What the spec says, by TRL's names."""
    found: dict[str, Any] = {}
    if spec.generation is not None:
        found |= {theirs: getattr(spec.generation, ours) for ours, theirs in method.generation_names.items()}
        if found.get("top_k") == -1:  # "all of them", which TRL calls 0
            found["top_k"] = 0
    if spec.training is not None:
        found |= {theirs: getattr(spec.training, ours) for ours, theirs in method.names.items()}
        found |= {name: value for name, value in given_arguments(spec).items() if name not in OURS}
        found |= spec.training.extra
    return {name: value for name, value in found.items() if value is not None}
