"""How many processes a training has, and on which GPUs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mloc_tasks.errors import ExecutionError
from mloc_tasks.gpus import named_gpus
from mloc_tasks.spec.model.training import Training

if TYPE_CHECKING:
    from mloc_tasks.spec import StageSpec


@dataclass(frozen=True, slots=True)
class Launch:
    """The processes of a training, and the GPUs they see, as CUDA_VISIBLE_DEVICES names them; none: they use CPUs.

    With several processes, each has the GPU of its number to itself.

    Attributes:
        sharded: FSDP or DeepSpeed splits the model among them, or keeps parts of it off its GPU: also a single process
            is then one of a group.
    """

    processes: int
    gpus: tuple[str, ...]
    sharded: bool = False

    @property
    def grouped(self) -> bool:
        """Whether they form a group, and so are no part of the process that starts them."""
        return self.processes > 1 or self.sharded


def launch_of(spec: StageSpec, *, gpus: Sequence[str], cpus: int) -> Launch:
    """What the stage asks for, on a machine of which it may use these GPUs and so many CPUs.

    Raises ExecutionError where it asks for more than there is.
    """
    training = spec.training or Training()
    spread = spec.model is not None and spec.model.config.device_map_auto
    mine = () if spec.enforce_cpu else _chosen(training.visible_devices, gpus)
    asked = spec.resources.hardware.gpu
    match training.nproc_per_node:
        case int(count):
            pass
        case "auto":
            count = max(len(mine), 1)
        case "gpu":
            count = len(mine)
            if count == 0:
                raise ExecutionError(
                    "training.nproc_per_node is gpu, and the stage has no GPU",
                    hint="ask for some by resources.hardware.gpu, or write auto",
                )
        case "cpu":
            count = cpus
        case None:
            several = training.allow_multi_gpu is not False and not spread
            count = min(len(mine), asked.count if asked else 1) if several else 1
    count = max(count, 1)
    if not mine and asks_for(spec, "deepspeed"):
        raise ExecutionError(
            "training.deepspeed needs GPUs, and the stage has none", hint="ask for some by resources.hardware.gpu"
        )
    if mine and count > len(mine):
        has = "1 GPU" if len(mine) == 1 else f"{len(mine)} GPUs"
        raise ExecutionError(
            f"training.nproc_per_node asks for {count} processes, and the stage has {has}",
            hint=f"each process needs a GPU of its own: write resources.hardware.gpu.count: {count}",
        )
    sharded = bool(mine) and (asks_for(spec, "fsdp") or asks_for(spec, "deepspeed"))
    return Launch(count, mine if spread and count == 1 else mine[:count], sharded)


def asks_for(spec: StageSpec, argument: str) -> bool:
    """Whether `training` has an argument of transformers that turns something on."""
    training = spec.training or Training()
    return bool({**(training.model_extra or {}), **training.extra}.get(argument))


def unsupported(document: Mapping[str, Any]) -> str | None:
    """What a stage's document says about its processes that cannot be; references in it are still text."""
    training, resources = _mapping(document.get("training")), _mapping(document.get("resources"))
    count = training.get("nproc_per_node")
    if not isinstance(count, int) or count < 2:
        return None
    if training.get("allow_multi_gpu") is False:
        return f"training.nproc_per_node: {count} and training.allow_multi_gpu: false contradict each other"
    if _mapping(_mapping(document.get("model")).get("config")).get("device_map_auto"):
        return (
            f"training.nproc_per_node: {count} and model.config.device_map_auto contradict each other: a model that is "
            "spread over all GPUs is trained by one process"
        )
    gpus = _mapping(_mapping(resources.get("hardware")).get("gpu")).get("count", 0)
    if isinstance(gpus, int) and 0 < gpus < count and not document.get("enforce_cpu"):
        return (
            f"training.nproc_per_node asks for {count} processes, and each needs a GPU of its own, but "
            f"resources.hardware.gpu.count is {gpus}"
        )
    return None


def visible_gpus() -> tuple[str, ...]:
    """The GPUs that this process sees, as CUDA_VISIBLE_DEVICES names them. Hosts are told which; else CUDA is asked."""
    named = named_gpus()
    if named is not None:
        return named
    import torch

    return tuple(str(number) for number in range(torch.cuda.device_count()))


def _chosen(wanted: str | tuple[int, ...] | None, gpus: Sequence[str]) -> tuple[str, ...]:
    """Of the stage's GPUs those that `visible_devices` names: by number, from 0, or as CUDA_VISIBLE_DEVICES does."""
    if wanted is None or not gpus:
        return tuple(gpus)
    names = [part.strip() for part in wanted.split(",")] if isinstance(wanted, str) else [str(part) for part in wanted]
    found = []
    for name in names:
        if name.isdigit() and int(name) < len(gpus):
            found.append(gpus[int(name)])
        elif not name.isdigit() and name in gpus:
            found.append(name)
        else:
            raise ExecutionError(
                f"training.visible_devices names {name!r}, and the stage has {len(gpus)} GPU{'s'[: len(gpus) > 1]}",
                hint="they are counted from 0, within the resources.hardware.gpu.count that the stage asks for",
            )
    if len(set(found)) < len(found):
        raise ExecutionError(f"training.visible_devices names a GPU twice: {', '.join(names)}")
    return tuple(found)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
