"""In which number formats a model is trained, by what the spec says and what the device computes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from mloc_tasks.executors.training.given import given_arguments
from mloc_tasks.executors.vllm.environment import computes_half_precision

if TYPE_CHECKING:
    from mloc_tasks.spec import StageSpec

Device = Literal["cuda", "cpu"]
Format = Literal["float32", "bfloat16", "float16"]

_SHORT: Mapping[str, Format] = {"bf16": "bfloat16", "fp16": "float16"}


@dataclass(frozen=True, kw_only=True)
class Precision:
    """How weights are kept and multiplied while training.

    Attributes:
        device: where it is trained.
        weights: the format that the model is loaded in. What is trained stays in float32, because small updates are
            lost in 16 bits; what is frozen (the model under a LoRA adapter) may be in 16.
        compute: the format of autocast's multiplications; float32 means no autocast.
    """

    device: Device
    weights: Format
    compute: Format

    @property
    def mixed(self) -> bool:
        """Whether autocast is on."""
        return self.compute != "float32"

    def autocast(self) -> AbstractContextManager[Any]:
        """Within it torch multiplies in the format `compute`."""
        if not self.mixed:
            return contextlib.nullcontext()
        import torch

        return torch.autocast(self.device, dtype=getattr(torch, self.compute))


def precision_of(
    spec: StageSpec, *, lora: bool, cuda: bool, half: bool, log: Callable[[str], None] = lambda message: None
) -> Precision:
    """The precision of a training stage.

    `training.bf16` and `fp16` go first, then `model.config`; without them it is bfloat16 where the device computes it,
    float16 on older GPUs, float32 on other CPUs. A format that the device lacks is replaced by the nearest that it has.

    Args:
        lora: an adapter is trained and the model stays as it is.
        cuda: there is a GPU; `enforce_cpu` keeps to the CPU all the same.
        half: the device has instructions for bfloat16.
    """
    device: Device = "cuda" if cuda and not spec.enforce_cpu else "cpu"
    fallback: Format = "bfloat16" if half else "float16" if device == "cuda" else "float32"
    asked = _asked(spec)
    compute = asked or fallback
    if (compute == "bfloat16" and not half) or (compute == "float16" and device == "cpu"):
        compute = fallback
        log(f"this {'GPU' if device == 'cuda' else 'CPU'} does not compute in {asked}: training in {compute}")
    weights: Format = compute if lora else "float32"
    return Precision(device=device, weights=_given_dtype(spec) or weights, compute=compute)


def precision_here(spec: StageSpec, *, lora: bool, log: Callable[[str], None] = lambda message: None) -> Precision:
    """`precision_of` on this machine."""
    import torch

    cuda = torch.cuda.is_available() and not spec.enforce_cpu
    half = torch.cuda.is_bf16_supported(including_emulation=False) if cuda else computes_half_precision()
    return precision_of(spec, lora=lora, cuda=cuda, half=half, log=log)


def _asked(spec: StageSpec) -> Format | None:
    arguments = given_arguments(spec)
    for short, name in _SHORT.items():
        if arguments.get(short):
            return name
    if any(arguments.get(short) is False for short in _SHORT):
        return "float32"
    if spec.model is not None:
        for short, name in _SHORT.items():
            if getattr(spec.model.config, short):
                return name
    return None


def _given_dtype(spec: StageSpec) -> Format | None:
    """What `model.transformers` says, which goes before everything else."""
    given = (spec.model.transformers or {}) if spec.model is not None else {}
    name = given.get("dtype", given.get("torch_dtype"))
    return name if name in ("float32", "bfloat16", "float16") else None
