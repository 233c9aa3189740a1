"""LoRA adapters on a loaded model (Hu et al. 2021), by PEFT, which is optional."""

from __future__ import annotations

import importlib
import importlib.util
import textwrap
import warnings
from collections.abc import Sequence
from typing import Any

from mloc_tasks.errors import ModelError
from mloc_tasks.models.downloads import address_of

_DOES_NOT_FIT = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    ImportError,
    RuntimeError,  # weights of another size
    AttributeError,  # a kind of adapter that cannot be merged
    UserWarning,
)
_SHOWN_CHARS = 300


def require_peft() -> None:
    """Raise ModelError when adapters cannot be loaded here; ask before the minutes that a model takes."""
    if importlib.util.find_spec("peft") is None:
        message = "LoRA adapters need the Python package peft, which is not installed on this worker"
        raise ModelError(message, hint="pip install 'mloc[lora]'")


def merge_adapters(model: Any, adapters: Sequence[str]) -> Any:
    """The Transformers model with the weights of each adapter directory added to its own, one after the other.

    Merged, because then generating costs what it costs without adapters. Raises ModelError for an adapter that does
    not fit the model, or is of a kind that cannot be merged.
    """
    require_peft()
    import torch

    peft: Any = importlib.import_module("peft")
    for path in adapters:
        try:
            with warnings.catch_warnings():
                # Weights that the file lacks would stay zero: the answers would be those of the bare model.
                warnings.filterwarnings("error", message="Found missing adapter keys")
                model = peft.PeftModel.from_pretrained(model, path).merge_and_unload()
        except torch.OutOfMemoryError:
            raise
        except _DOES_NOT_FIT as error:
            why = textwrap.shorten(str(error), _SHOWN_CHARS, placeholder=" ...")  # one line for each layer
            raise ModelError(
                f"the adapter {address_of(path)} cannot be put on this model: {why}",
                hint="it must be a LoRA adapter that was trained on this very model",
            ) from error
    return model
