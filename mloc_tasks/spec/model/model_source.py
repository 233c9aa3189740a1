"""Which model a stage works with, and how it is loaded."""

import re
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from mloc_tasks.spec.expressions import has_expression
from mloc_tasks.spec.model.base import Count, PassThrough, PositiveCount, Share, SpecModel, Text, refuse
from mloc_tasks.spec.names import shown


class Source(SpecModel):
    """Where a model's files come from."""

    type: Literal["huggingface", "local", "s3", "http", "package"] = Field(
        "huggingface",
        description="`package` names a file inside an installed Python package: `package/path/model.gguf`.",
    )
    identifier: Text = Field(description="Hub name, directory, `s3://` or `http://` address, or file in a package.")
    revision: Text | None = Field(None, description="Branch, tag or commit of a hub model.")
    trust_remote_code: bool = Field(False, description="Run Python code that the model's repository brings.")


class LoadConfig(SpecModel):
    """How weights are put into memory."""

    fp16: bool = Field(False, description="Half precision.")
    bf16: bool = Field(False, description="bfloat16.")
    device_map_auto: bool = Field(False, description="Spread the layers over all devices.")

    @model_validator(mode="after")
    def _one_precision(self) -> Self:
        if self.fp16 and self.bf16:
            raise refuse("`fp16` and `bf16` exclude each other", "keep one", at=("fp16",))
        return self


class Adapter(SpecModel):
    """A LoRA adapter to load beside the model."""

    name: Text = Field(description="What requests and results call it.")
    path: Text | None = Field(None, description="A directory or an archive on the worker's file system.")
    url: Text | None = Field(None, description="`s3://` or `http://` address of a directory or an archive.")

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.path is None) == (self.url is None):
            raise refuse("an adapter has exactly one of `path` and `url`")
        return self


class Model(SpecModel):
    """The model of a stage. A `vllm` block picks the vLLM executor, a `transformers` block the Transformers one."""

    source: Source | None = Field(None, description="Where the model's files come from.")
    vllm: PassThrough | None = Field(None, description="Engine arguments of vLLM, passed through.")
    transformers: PassThrough | None = Field(None, description="Arguments of `from_pretrained`, passed through.")
    config: LoadConfig = Field(
        default_factory=LoadConfig.model_construct, description="Precision and placement of the weights."
    )
    adapters: tuple[Adapter, ...] = Field((), description="LoRA adapters to load.")


REWARD_FUNCTION = r"([A-Za-z_]\w*\.)*[A-Za-z_]\w*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*|[A-Za-z0-9_][\w.-]*"
"""`module:function`, or the name of an entry point."""


def check_function(name: str, *, at: tuple[str | int, ...] = ()) -> None:
    """Refuse what names no reward function: neither `module:function` nor an entry point of group `mloc.rewards`."""
    if not re.fullmatch(REWARD_FUNCTION, name):
        raise refuse(
            f"{shown(name)} names no function",
            "write package.module:function, or the name of an entry point of group mloc.rewards",
            at=at,
        )


class RewardModel(SpecModel):
    """What scores completions in `ppo` and `grpo`."""

    identifier: Text | None = Field(
        None,
        description="Hub name, directory or address of a classifier; with type `function`: `module:function`, or the "
        "name of an entry point of group `mloc.rewards`, called with the prompts and the completions.",
    )
    type: Literal["sentiment", "classifier", "reward", "function"] | None = Field(
        None,
        description="`sentiment`: its classes say how positive a text is; `classifier` or `reward`: its one output is "
        "the score, as a `reward` stage trains it; `function`: Python. By default told from the model.",
    )
    url: Text | None = Field(None, description="Address of a reward model that an earlier stage trained.")
    path: Text | None = Field(None, description="Directory or archive of a reward model.")
    revision: Text | None = Field(None, description="Branch, tag or commit of a hub model.")
    label: Text | None = Field(None, description="The class whose score is the reward, such as `positive`.")
    batch_size: PositiveCount | None = Field(None, description="Completions scored at once.")
    trust_remote_code: bool = Field(False, description="Run Python code that the model's repository brings.")

    @model_validator(mode="after")
    def _is_somewhere(self) -> Self:
        given = [name for name in ("identifier", "url", "path") if getattr(self, name) is not None]
        if self.type == "function":
            if given != ["identifier"]:
                raise refuse("a reward function is named by `identifier` alone", "write identifier: module:function")
            if self.identifier and not has_expression(self.identifier):
                check_function(self.identifier, at=("identifier",))
        elif len(given) != 1:
            raise refuse("a reward model has exactly one of `identifier`, `url` and `path`")
        return self


class Lora(SpecModel):
    """Low-rank adaptation (Hu et al. 2021), in PEFT's words."""

    other_names: ClassVar[dict[str, str]] = {
        "rank": "r",
        "lora_r": "r",
        "lora_alpha": "alpha",
        "lora_dropout": "dropout",
    }

    r: PositiveCount = Field(16, description="Rank of the update matrices.")
    alpha: PositiveCount = Field(32, description="Scale of the update; it is multiplied by alpha / r.")
    dropout: Share = Field(0.0, description="Dropout on the adapter's input.")
    target_modules: Text | tuple[Text, ...] | None = Field(
        None, description="Layers to adapt, by name, or `all-linear`."
    )
    modules_to_save: tuple[Text, ...] | None = Field(None, description="Layers trained in full and saved as well.")
    bias: Literal["none", "all", "lora_only"] = Field("none", description="Which biases are trained.")
    use_rslora: bool = Field(False, description="Scale by alpha / sqrt(r).")
    use_dora: bool = Field(False, description="Decompose weights into magnitude and direction.")
    seed: Count | None = Field(None, description="Seed of the adapter's initial weights.")


class CheckpointLoad(SpecModel):
    """A model, adapter or training checkpoint to start from: a directory or an archive."""

    url: Text | None = Field(None, description="Address, often `${stage.result.final_model_archive_url}`.")
    path: Text | None = Field(None, description="Directory, `.tar.gz`, `.tar.zst`, `.tar` or `.zip`.")
    type: Literal["auto", "model", "adapter", "lora", "checkpoint"] = Field(
        "auto", description="What it holds; `auto` looks."
    )

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.path is None) == (self.url is None):
            raise refuse("exactly one of `url` and `path` says where the checkpoint is")
        return self


class Checkpoint(SpecModel):
    """Where a stage starts from."""

    load: CheckpointLoad | None = Field(None, description="Start from this model, adapter or training checkpoint.")
