"""The model that a training starts from, with its tokenizer, loaded so that it can be trained."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mloc_tasks.errors import ModelError
from mloc_tasks.executors.generation.model_files import cache_dir_of
from mloc_tasks.executors.training.checkpoints import ABOUT
from mloc_tasks.executors.training.lora import (
    lora_config,
    trained_in_float32,
    uses_lora,
    with_adapter_from,
    with_new_adapter,
)
from mloc_tasks.executors.training.precision import Format, Precision, precision_here
from mloc_tasks.executors.training.rank import world_size
from mloc_tasks.executors.training.tokens import tokenizer_for
from mloc_tasks.models import ModelFiles, files_of_stage
from mloc_tasks.models.adapters import merge_adapters, require_peft
from mloc_tasks.models.contents import is_adapter, is_ppo_checkpoint, kind_of

if TYPE_CHECKING:
    from mloc_tasks.executors.base import Task
    from mloc_tasks.spec import StageSpec

CAUSAL_LM = "AutoModelForCausalLM"
SCORER = "AutoModelForSequenceClassification"
"""Transformers' classes of models that write text and of models with one score for a text."""

_PEFT_TASK = {CAUSAL_LM: "CAUSAL_LM", SCORER: "SEQ_CLS"}
_SAME_METHOD = {"lora_sft": "sft"}
_FORMATS: tuple[Format, ...] = ("float32", "bfloat16", "float16")


@dataclass(frozen=True, kw_only=True)
class Trainee:
    """What is trained.

    Attributes:
        model: the Transformers model on the CPU; a PEFT model where the adapter of `checkpoint.load` is trained on.
        tokenizer: its `pad_token` is set.
        files: where it came from; `files.name` goes into the result.
        precision: as which it was loaded.
        lora: PEFT's configuration of the adapter that is still to be put onto the model; None: all weights are
            trained, or `model` has its adapter already.
        file_format: the format of the weights in the model's files, in which the trained model is saved again; None
            when they do not say.
        auto_class: the class that loaded it.
    """

    model: Any
    tokenizer: Any
    files: ModelFiles
    precision: Precision
    lora: Any | None
    file_format: Format | None
    auto_class: str = CAUSAL_LM

    @property
    def adapts(self) -> bool:
        """Whether an adapter is trained and not the model itself."""
        return self.lora is not None or hasattr(self.model, "peft_config")

    def with_adapter(self, *, seed: int | None = None) -> Trainee:
        """The same with its new adapter in place, for methods whose trainer does not do that."""
        if self.lora is None:
            return self
        model = with_new_adapter(self.model, self.lora, seed=seed)
        if self.precision.mixed:
            trained_in_float32(model)
        return replace(self, model=model, lora=None)


def load_for_training(
    task: Task, *, auto_class: str = CAUSAL_LM, from_source: bool = False, **arguments: Any
) -> Trainee:
    """Load the stage's model: `model.source`, or what `checkpoint.load` says, with `model.adapters` merged into it.

    An adapter in `checkpoint.load` is trained further where an adapter is trained, else merged too.

    Args:
        auto_class: CAUSAL_LM or SCORER; arguments: further ones of its `from_pretrained`, such as `num_labels`.
        from_source: load `model.source` whatever `checkpoint.load` says, because the trainer takes that up itself.

    Raises ModelError when there is no such model or it does not load.
    """
    spec, log = task.spec, task.report.log
    if from_source:
        spec = spec.model_copy(update={"checkpoint": None})
    lora = uses_lora(spec)
    files = files_of_stage(spec, cache_dir=cache_dir_of(task), log=log)
    if lora or files.adapters:
        require_peft()
    precision = precision_here(spec, lora=lora, log=log)
    started_from = _adapter_to_train(spec) if lora else None
    merged = files.adapters if started_from is None else files.adapters[1:]  # the checkpoint's is the first
    model = load_model(spec, replace(files, adapters=merged), precision, auto_class=auto_class, **arguments)
    if started_from is not None:
        model = with_adapter_from(model, started_from)
        if precision.mixed:
            trained_in_float32(model)
        if spec.lora is not None:
            log("the adapter of checkpoint.load is trained further, with its own rank and layers", level="warning")
    new_adapter = lora and started_from is None
    return Trainee(
        model=model,
        tokenizer=tokenizer_for(files),
        files=files,
        precision=precision,
        lora=lora_config(spec, peft_task=_PEFT_TASK[auto_class]) if new_adapter else None,
        file_format=_file_format(files),
        auto_class=auto_class,
    )


def load_model(
    spec: StageSpec, files: ModelFiles, precision: Precision, *, auto_class: str = CAUSAL_LM, **arguments: Any
) -> Any:
    """The model of `files`, adapters merged, on the CPU unless it is spread over GPUs. Raises ModelError.

    `model.transformers` goes to `from_pretrained` unchanged.
    """
    import torch
    import transformers

    given = dict(spec.model.transformers or {}) if spec.model is not None else {}
    given.pop("torch_dtype", None)  # the older name of `dtype`, which `precision` holds
    spread = {"device_map": "auto"} if _spreads(spec, precision) else {}
    asked = {"revision": files.revision, "trust_remote_code": files.trust_remote_code, **spread, **given, **arguments}
    asked["dtype"] = getattr(torch, precision.weights)
    try:
        model = getattr(transformers, auto_class).from_pretrained(files.location, **asked)
        if files.adapters:
            model = merge_adapters(model, files.adapters).requires_grad_(True)  # PEFT froze what it put them onto
    except torch.OutOfMemoryError:
        raise
    except (OSError, ValueError, TypeError, KeyError, ImportError, RuntimeError) as error:
        raise ModelError(f"the model {files.name} cannot be loaded: {error}", hint=_hint(error)) from error
    _make_saveable(model)
    return model


def checkpoint_to_continue(task: Task) -> Path | None:
    """The training checkpoint to go on from: an earlier attempt's, else the one that `checkpoint.load` names."""
    return task.resume_from or training_checkpoint(task)


def training_checkpoint(task: Task) -> Path | None:
    """The training checkpoint in `checkpoint.load`, whose optimizer, random state and place in the data are taken up.

    None where it names something else, or another method's checkpoint: of that the weights alone are used.
    """
    load = None if task.spec.checkpoint is None else task.spec.checkpoint.load
    if load is None or load.path is None or load.type in ("model", "adapter", "lora"):
        return None
    path = Path(load.path).expanduser().absolute()
    if kind_of(path) != "checkpoint" or is_ppo_checkpoint(path) != (task.spec.task_type == "ppo"):
        return None
    if (path / ABOUT).exists():
        made_by = json.loads((path / ABOUT).read_text(encoding="utf-8"))["task_type"]
        if _SAME_METHOD.get(made_by, made_by) != _SAME_METHOD.get(task.spec.task_type, task.spec.task_type):
            return None
    return path


def _adapter_to_train(spec: StageSpec) -> Path | None:
    load = None if spec.checkpoint is None else spec.checkpoint.load
    if load is None or load.path is None:
        return None
    path = Path(load.path).expanduser().absolute()
    return path if is_adapter(path) else None


def _spreads(spec: StageSpec, precision: Precision) -> bool:
    return (
        spec.model is not None
        and spec.model.config.device_map_auto
        and precision.device == "cuda"
        and world_size() == 1
    )


def _make_saveable(model: Any) -> None:
    """Some models are published with generation defaults that contradict each other.

    Transformers loads those but refuses to save them: better known now than when the training is over.
    """
    defaults = getattr(model, "generation_config", None)
    if defaults is None:
        return
    try:
        defaults.validate(strict=True)
    except ValueError:
        defaults.do_sample = True  # nearly always: a temperature or top_p without it


def _hint(error: Exception) -> str:
    if isinstance(error, TypeError):
        return "model.transformers is passed on to from_pretrained; check its keys"
    if isinstance(error, ImportError):
        return "install the package it names on the workers"
    return "training needs a language model with its tokenizer"


def _file_format(files: ModelFiles) -> Format | None:
    from transformers import AutoConfig

    config: Any = AutoConfig.from_pretrained(
        files.location, revision=files.revision, trust_remote_code=files.trust_remote_code
    )
    name = str(config.dtype).removeprefix("torch.")
    return next((known for known in _FORMATS if known == name), None)
