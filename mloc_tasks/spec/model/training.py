"""`training`: MLOC's own names. Arguments of TRL and transformers stand beside them (see `training_arguments`)."""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from mloc_tasks.spec.expressions import has_expression
from mloc_tasks.spec.model.base import (
    Count,
    NotNegative,
    Number,
    PassThrough,
    Positive,
    PositiveCount,
    PositiveShare,
    Share,
    SpecModel,
    Text,
    refuse,
)
from mloc_tasks.spec.model.model_source import check_function
from mloc_tasks.spec.training_arguments import ArgumentError, all_arguments, argument_value

_OLD_TRL = "TRL's old PPO trainer had it; it does nothing today"

SAME = {
    "batch_size": "per_device_train_batch_size",
    "steps": "max_steps",
    "max_seq_length": "max_length",
    "save_freq": "save_steps",
}
"""Our name -> the TRL or transformers argument that means the same."""

LAUNCH = ("allow_multi_gpu", "nproc_per_node", "visible_devices")
"""Keys that say how the training processes are started."""

Devices = Annotated[
    str | tuple[Count, ...],
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "integer", "minimum": 0}}]}),
]


def _functions(value: object) -> object:
    names = (value,) if isinstance(value, str) else value
    if isinstance(names, list | tuple):
        for position, name in enumerate(names):
            if isinstance(name, str) and not has_expression(name):
                check_function(name, at=() if isinstance(value, str) else (position,))
    return names


RewardFunctions = Annotated[
    tuple[Text, ...],
    BeforeValidator(_functions),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
]


class Training(SpecModel):
    """How a model is trained.

    `model_extra` holds the arguments of TRL's config and of TrainingArguments that the spec gives, with numbers parsed.
    """

    model_config = ConfigDict(extra="allow")

    other_names: ClassVar[dict[str, str]] = {
        "max_sequence_length": "max_seq_length",
        "epochs": "num_train_epochs",
        "num_epochs": "num_train_epochs",
        "num_ppo_epochs": "ppo_epochs",
        "init_kl_coef": "kl_coef",
        "adap_kl_ctrl": "adaptive_kl",
        "gae_lambda": "lam",
        "lambda": "lam",
        "clip_range": "cliprange",
        "clip_range_value": "cliprange_value",
        "value_coef": "vf_coef",
        "target": "kl_target",
        "horizon": "kl_horizon",
    }
    retired: ClassVar[dict[str, str]] = {
        "optimize_cuda_cache": _OLD_TRL,
        "optimize_device_cache": _OLD_TRL,
        "log_with": "metrics are always written beside the result",
        "tracker_project_name": _OLD_TRL,
        "tracker_kwargs": _OLD_TRL,
        "forward_batch_size": _OLD_TRL,
        "compare_steps": _OLD_TRL,
    }
    ppo_only: ClassVar[frozenset[str]] = frozenset(
        {
            "ppo_epochs", "target_kl", "kl_coef", "adaptive_kl", "kl_target", "kl_horizon", "early_stopping", "gamma",
            "lam", "cliprange", "cliprange_value", "vf_coef", "entropy_coef", "whiten_advantages", "whiten_rewards",
            "score_clip", "value_learning_rate", "missing_eos_penalty", "length_penalty", "free_tokens",
            "mini_batch_size",
        }
    )  # fmt: skip

    finetuning_type: Literal["full", "lora"] | None = Field(
        None,
        description="All weights, or a low-rank adapter. By default `lora` for `ppo`, `lora_sft` and wherever a `lora` "
        "block stands, else `full`.",
    )
    learning_rate: Positive | None = Field(None, description="Peak learning rate, such as `1.41e-5`.")
    num_train_epochs: Positive | None = Field(None, description="Passes over the data.")
    steps: PositiveCount | None = Field(None, description="Optimizer steps (`ppo`: rollouts); wins over epochs.")
    batch_size: PositiveCount | None = Field(None, description="Rows per device and step (`ppo`: in one rollout).")
    mini_batch_size: PositiveCount | None = Field(None, description="Rows per gradient step inside a PPO rollout.")
    gradient_accumulation_steps: PositiveCount | None = Field(
        None, description="Batches whose gradients are added up before a step."
    )
    max_seq_length: PositiveCount | None = Field(None, description="Tokens of a row at most; the rest is cut.")
    seed: Count | None = Field(None, description="Seed of everything random.")
    max_grad_norm: NotNegative | None = Field(None, description="Gradients are scaled down to this norm.")
    save_model: bool = Field(True, description="Keep the trained model as an artifact.")
    save_freq: PositiveCount | None = Field(None, description="Steps between checkpoints.")

    ppo_epochs: PositiveCount | None = Field(None, description="Passes over a rollout.")
    target_kl: Positive | None = Field(
        None,
        description="A rollout's passes end when the policy has moved 1.5 times this far from the one that sampled it: "
        "mean KL, nats per token.",
    )
    early_stopping: bool | None = Field(None, description="False: `target_kl` ends nothing.")
    kl_coef: NotNegative | None = Field(
        None, description="Weight of the KL penalty to the reference model in the reward, at the start; default 0.05."
    )
    adaptive_kl: bool | None = Field(None, description="Adapt the weight towards `kl_target`; default true.")
    kl_target: Positive | None = Field(
        None,
        description="KL to the reference model, nats per completion, that the weight is adapted towards; default 4. "
        "`target` is the same.",
    )
    kl_horizon: Positive | None = Field(None, description="Samples over which the weight adapts.")
    gamma: Share | None = Field(None, description="Discount of later rewards.")
    lam: Share | None = Field(None, description="Lambda of generalised advantage estimation.")
    cliprange: PositiveShare | None = Field(None, description="Clip of the policy's probability ratio.")
    cliprange_value: Positive | None = Field(None, description="Clip of the value's change.")
    vf_coef: NotNegative | None = Field(None, description="Weight of the value loss.")
    entropy_coef: NotNegative | None = Field(None, description="Weight of the entropy bonus.")
    whiten_advantages: bool | None = Field(None, description="Scale advantages to mean 0 and deviation 1.")
    whiten_rewards: bool | None = Field(None, description="Scale rewards to deviation 1.")
    score_clip: Positive | None = Field(None, description="Scores are cut to plus or minus this.")
    missing_eos_penalty: Number | None = Field(None, description="Taken from the score of a completion without end.")
    length_penalty: NotNegative | None = Field(
        None, description="Taken from the score for each token of a completion beyond the first `free_tokens`."
    )
    free_tokens: Count | None = Field(None, description="Tokens of a completion that `length_penalty` leaves free.")
    value_learning_rate: Positive | None = Field(None, description="Learning rate of the value head.")

    reward_functions: RewardFunctions = Field(
        (), description="What scores completions (`grpo`): `module:function`, or names of group `mloc.rewards`."
    )
    allow_multi_gpu: bool | None = Field(None, description="Use all GPUs of the worker; false keeps to one.")
    nproc_per_node: PositiveCount | Literal["auto", "gpu", "cpu"] | None = Field(
        None, description="Processes that torchrun starts."
    )
    visible_devices: Devices | None = Field(None, description="GPUs to use, such as `0,1` or `[0, 1]`.")
    extra: PassThrough = Field({}, description="Further arguments for the trainer's config, passed through unchecked.")

    @model_validator(mode="before")
    @classmethod
    def _parse_arguments(cls, value: Any) -> Any:
        if not isinstance(value, dict) or value.keys() <= cls.model_fields.keys():
            return value
        known = all_arguments()
        parsed = dict(value)
        for name in value.keys() - cls.model_fields.keys():
            if name not in known or has_expression(value[name]):
                continue
            try:
                parsed[name] = argument_value(value[name], known[name])
            except ArgumentError as error:
                raise refuse(str(error), at=(name,)) from None
        return parsed

    @model_validator(mode="after")
    def _one_name_each(self) -> Self:
        given = self.model_extra or {}
        for ours, theirs in SAME.items():
            if theirs in given and getattr(self, ours) is not None:
                raise refuse(f"`{theirs}` and `{ours}` mean the same", "keep one", at=(theirs,))
        return self
