"""Where a model runs and in which precision, decided from the spec and what the machine has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from mloc_tasks.spec import StageSpec

Device = Literal["cuda", "cpu"]


@dataclass(frozen=True, kw_only=True)
class Placement:
    """How `from_pretrained` is called.

    Attributes:
        device: where the model is moved to; with a `device_map` among the arguments, where its inputs go.
        arguments: keyword arguments, `dtype` among them.
    """

    device: Device
    arguments: Mapping[str, Any]

    @property
    def spread(self) -> bool:
        """Whether accelerate places the layers, instead of all going to `device`."""
        return self.arguments.get("device_map") is not None


def place(spec: StageSpec, *, cuda: bool) -> Placement:
    """The first GPU where there is one, unless `enforce_cpu` is set; what `model.transformers` says goes first.

    Precision: `model.config.fp16` or `bf16`, else the one of the model's files. On a CPU fp16 means bfloat16, which
    CPUs compute faster and which does not overflow.
    """
    device: Device = "cuda" if cuda and not spec.enforce_cpu else "cpu"
    arguments: dict[str, Any] = {"dtype": "auto"}
    if spec.model is not None:
        config = spec.model.config
        if config.bf16 or (config.fp16 and device == "cpu"):
            arguments["dtype"] = "bfloat16"
        elif config.fp16:
            arguments["dtype"] = "float16"
        if config.device_map_auto and device == "cuda":
            arguments["device_map"] = "auto"
        given = dict(spec.model.transformers or {})
        if "torch_dtype" in given:  # the older name of the same argument
            given["dtype"] = given.pop("torch_dtype")
        arguments |= given
    return Placement(device=device, arguments=arguments)
