"""LoRA adapters that are trained (Hu et al. 2021), by PEFT."""

from __future__ import annotations

import importlib
import textwrap
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mloc_tasks.errors import ExecutionError, ModelError
from mloc_tasks.models.adapters import require_peft
from mloc_tasks.models.downloads import address_of

if TYPE_CHECKING:
    from mloc_tasks.spec import StageSpec

ALL_LINEAR = "all-linear"
LORA_BY_DEFAULT = frozenset({"lora_sft", "ppo"})
"""Task types that train an adapter unless `training.finetuning_type` says `full`."""

_SHOWN_CHARS = 300
_REGEX_SIGNS = frozenset("\\*+?()[]{}|^$.")


def uses_lora(spec: StageSpec) -> bool:
    """Whether an adapter is trained instead of all weights."""
    kind = finetuning_type(spec)
    return kind == "lora" if kind is not None else spec.lora is not None or spec.task_type in LORA_BY_DEFAULT


def finetuning_type(spec: StageSpec) -> str | None:
    """What `training.finetuning_type` says: `full`, `lora`, or nothing."""
    return None if spec.training is None else spec.training.finetuning_type


def lora_config(spec: StageSpec, *, peft_task: str = "CAUSAL_LM") -> Any:
    """PEFT's configuration of a new adapter, out of the `lora` block; its defaults where there is none.

    Args:
        peft_task: `CAUSAL_LM`, or `SEQ_CLS` for a model with a head that scores.
    """
    require_peft()
    from mloc_tasks.spec.model.model_source import Lora

    lora = spec.lora or Lora.model_validate({})
    peft: Any = importlib.import_module("peft")
    return peft.LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=_target_modules(lora.target_modules),
        modules_to_save=None if lora.modules_to_save is None else list(lora.modules_to_save),
        bias=lora.bias,
        use_rslora=lora.use_rslora,
        use_dora=lora.use_dora,
        task_type=peft_task,
    )


def with_new_adapter(model: Any, config: Any, *, seed: int | None = None) -> Any:
    """The PEFT model with a new adapter on `model`, its weights drawn by `seed` where one is given."""
    peft: Any = importlib.import_module("peft")
    with lora_errors():
        adapted = peft.get_peft_model(model, config)
    if seed is not None:
        draw_weights(adapted, seed)
    return adapted


def trained_in_float32(model: Any) -> None:
    """Turn the trained weights that are in 16 bits to float32: biases and `modules_to_save`, which PEFT leaves as they
    are in the model. Their multiplications need autocast then.
    """
    import torch

    half = (torch.float16, torch.bfloat16)
    trained = [weights for weights in model.parameters() if weights.requires_grad and weights.dtype in half]
    for weights in trained:
        weights.data = weights.data.float()
    for module in model.modules() if trained else ():
        if isinstance(module, torch.nn.LayerNorm):
            module.float()  # a CPU's takes no weight in 16 bits beside a bias, or behind an embedding, in float32


def unchanged_without(config: Any) -> bool:
    """Whether a model whose new adapter is switched off is the model as it was: PEFT leaves trained biases on."""
    return bool(config.bias == "none")


def draw_weights(model: Any, seed: int) -> None:
    """Draw the initial weights of the adapter anew by `seed`; nothing else that is random changes."""
    import torch

    layers: Any = importlib.import_module("peft.tuners.lora").LoraLayer
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for module in model.modules():
            if isinstance(module, layers):
                module.reset_lora_parameters("default", True)


def with_adapter_from(model: Any, directory: Path) -> Any:
    """The PEFT model whose adapter is the one in `directory`, to be trained further. Raises ModelError."""
    require_peft()
    peft: Any = importlib.import_module("peft")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="Found missing adapter keys")
            return peft.PeftModel.from_pretrained(model, str(directory), is_trainable=True)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, UserWarning) as error:
        why = textwrap.shorten(str(error), _SHOWN_CHARS, placeholder=" ...")
        raise ModelError(
            f"the adapter {address_of(directory)} cannot be trained on this model: {why}",
            hint="it must be a LoRA adapter that was trained on this very model",
        ) from error


@contextmanager
def lora_errors() -> Iterator[None]:
    """Within it, what PEFT says about a `lora` block that does not fit the model becomes an ExecutionError."""
    try:
        yield
    except ValueError as error:
        if "target" not in str(error).lower() or "module" not in str(error).lower():
            raise
        why = textwrap.shorten(str(error), _SHOWN_CHARS, placeholder=" ...")
        raise ExecutionError(
            f"lora.target_modules does not fit the model: {why}",
            hint=f"name linear layers of the model, such as [q_proj, v_proj], or write {ALL_LINEAR}",
        ) from error


def _target_modules(given: str | tuple[str, ...] | None) -> str | list[str]:
    """All linear layers by default. A plain name or names with commas are layers; anything else is PEFT's pattern."""
    if given is None:
        return ALL_LINEAR
    if not isinstance(given, str):
        return list(given)
    if given == ALL_LINEAR or _REGEX_SIGNS & set(given):
        return given
    return [name.strip() for name in given.split(",")]
