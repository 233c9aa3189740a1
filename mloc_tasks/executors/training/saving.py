"""What a training leaves behind: the model, the adapter, and the result that names them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mloc_tasks.executors.base import write_json
from mloc_tasks.executors.training.given import keeps_model
from mloc_tasks.executors.training.loading import load_model
from mloc_tasks.executors.training.lora import finetuning_type
from mloc_tasks.executors.training.rank import is_first
from mloc_tasks.models.adapters import merge_adapters
from mloc_tasks.models.contents import ADAPTER_CONFIG

if TYPE_CHECKING:
    from mloc_tasks.executors.base import Task
    from mloc_tasks.executors.training.loading import Trainee

FINAL_MODEL = "final_model"
FINAL_LORA = "final_lora"

_MODEL_FIELDS = frozenset({"final_model_url", "final_model_archive_url"})


def save_trained(task: Task, out_dir: Path, trainee: Trainee, model: Any) -> None:
    """Save the trained `model` below `out_dir`; nothing with `training.save_model: false`.

    `final_lora` is the adapter, where one was trained. `final_model` is the whole model with its tokenizer and chat
    template, as Transformers and vLLM load it, in the format of the files that it came from. Of an adapter it is the
    merged model, made only where `wants_model` says so: it takes the room of the whole model.

    Call it in one process, once the trainer is done: the model is changed in place, so that no second copy of it is
    in memory.
    """
    if not keeps_model(task.spec):
        return
    if trainee.adapts:
        _save_adapter(out_dir / FINAL_LORA, trainee, model)
        if not wants_model(task):
            return
        model = model.merge_and_unload()
    save_model(out_dir / FINAL_MODEL, trainee, model)


def wants_model(task: Task) -> bool:
    """Whether a trained adapter is also wanted merged into its model.

    A later stage refers to it or the output asks for it; or the spec has no word of adapters (PPO trains one all the
    same), so that whoever wrote it expects a model.
    """
    spec = task.spec
    asked_for_adapter = spec.lora is not None or spec.task_type == "lora_sft"
    asked_for_adapter |= finetuning_type(spec) == "lora"
    return bool(_MODEL_FIELDS & task.wanted) or not asked_for_adapter


def save_model(directory: Path, trainee: Trainee, model: Any) -> None:
    """Save a whole model with its tokenizer. It is converted in place to the format of the files it came from."""
    import torch

    if trainee.file_format is not None:
        model = model.to(getattr(torch, trainee.file_format))
    model.config.use_cache = True  # transformers' trainer leaves it off
    model.save_pretrained(str(directory))
    trainee.tokenizer.save_pretrained(str(directory))


def result_of(
    trainee: Trainee, *, steps: int, metrics: dict[str, float], train_seconds: float, **more: Any
) -> dict[str, Any]:
    """The stage's result; the worker adds the addresses. `train_seconds`: of this attempt's steps."""
    training = {"steps": steps, "metrics": metrics, "train_seconds": round(train_seconds, 3)}
    return {"ok": True, "model": trainee.files.name, **training, **more}


def _save_adapter(directory: Path, trainee: Trainee, model: Any) -> None:
    model.save_pretrained(str(directory), selected_adapters=["default"])
    # Where this machine keeps the model is of no use elsewhere; what the spec calls it is.
    config: Any = json.loads((directory / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    write_json(directory / ADAPTER_CONFIG, {**config, "base_model_name_or_path": trainee.files.name})
    (directory / "README.md").unlink(missing_ok=True)  # a form that nobody has filled in


def save_sharded(trainer: Any, trainee: Trainee, task: Task, out_dir: Path) -> bool:
    """Save a model whose weights lie in pieces in several processes (FSDP, DeepSpeed); False where it is in one piece.

    Call it in every process: they give their pieces to the first one.
    """
    if not (trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled):
        return False
    if keeps_model(task.spec):
        directory = out_dir / (FINAL_LORA if trainee.adapts else FINAL_MODEL)
        trainer.save_model(str(directory))
        if is_first():
            (directory / "training_args.bin").unlink(missing_ok=True)
            if trainee.adapts and wants_model(task):
                whole = load_model(task.spec, trainee.files, trainee.precision, auto_class=trainee.auto_class)
                save_model(out_dir / FINAL_MODEL, trainee, merge_adapters(whole, [str(directory)]))
    return True
