"""Engine arguments: what `model.vllm` says, checked against the installed version, and what the spec implies.

Pure functions; the names that the installed version knows are handed in.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mloc_tasks.errors import ExecutionError

if TYPE_CHECKING:
    from mloc_tasks.models import ModelFiles
    from mloc_tasks.spec import StageSpec

SAID_ELSEWHERE = {
    "model": "model.source.identifier",
    "revision": "model.source.revision",
    "trust_remote_code": "model.source.trust_remote_code",
}
"""Arguments that the spec has a place of its own for, so that there is one to look at (and to forbid)."""
HUB_DEFAULT_BRANCH = "main"
_SUGGESTIONS = 3


class ArgumentNameError(ExecutionError):
    """A key of `model.vllm` that cannot stand there."""


def canonical(given: Mapping[str, Any]) -> dict[str, Any]:
    """`model.vllm` with vLLM's spelling of the keys; `maxModelLen` and `max-model-len` are taken for `max_model_len`.

    Raises ArgumentNameError for a key that is there twice, or that the spec has another place for.
    """
    arguments: dict[str, Any] = {}
    for key, value in given.items():
        name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", str(key)).replace("-", "_").lower()
        if name in arguments:
            raise ArgumentNameError(f"model.vllm says {name} twice, once as {key}")
        if name in SAID_ELSEWHERE:
            raise ArgumentNameError(f"model.vllm.{key} is not taken from there; set {SAID_ELSEWHERE[name]}")
        arguments[name] = value
    return arguments


def check_names(names: Collection[str], *, known: Collection[str], version: str) -> None:
    """Raise ArgumentNameError for the first of `names` that vLLM `version` does not know, naming those close to it."""
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=_SUGGESTIONS)
            raise ArgumentNameError(
                f"model.vllm.{name}: vLLM {version} has no such engine argument",
                hint=f"did you mean {' or '.join(near)}?" if near else "its documentation lists them: Engine Arguments",
            )


def engine_arguments(
    spec: StageSpec, files: ModelFiles, *, cpu: bool, lora_rank: int | None, defaults: Mapping[str, Any]
) -> dict[str, Any]:
    """Keyword arguments of vLLM's `AsyncEngineArgs`; what `model.vllm` says goes first.

    Args:
        files: the model.
        cpu: the installed build runs on the CPU.
        lora_rank: the largest rank of the adapters to come; None: none will.
        defaults: further arguments, for what `model.vllm` leaves open.
    """
    arguments: dict[str, Any] = {"disable_log_stats": True, "use_tqdm_on_load": False, **defaults}
    if spec.model is not None:
        config = spec.model.config
        if config.bf16 or (config.fp16 and cpu):  # CPUs compute bfloat16 faster, and it does not overflow
            arguments["dtype"] = "bfloat16"
        elif config.fp16:
            arguments["dtype"] = "float16"
    if not cpu:
        arguments["tensor_parallel_size"] = gpu_count(spec)
    if lora_rank is not None:
        arguments |= {"enable_lora": True, "max_lora_rank": lora_rank}
    given = canonical((spec.model.vllm if spec.model is not None else None) or {})
    source = {"model": files.location, "revision": files.revision, "trust_remote_code": files.trust_remote_code}
    return {"tokenizer_revision": _tokenizer_revision(given.get("tokenizer"), files), **arguments, **given, **source}


def _tokenizer_revision(tokenizer: Any, files: ModelFiles) -> str | None:
    """The model's commit for its own tokenizer. It means nothing in another repository, where vLLM would ask for it."""
    if tokenizer is None or tokenizer == files.location:
        return files.revision
    return None if Path(str(tokenizer)).exists() else HUB_DEFAULT_BRANCH


def cpu_ranks(arguments: Mapping[str, Any]) -> int:
    """Processes of an engine on the CPU; what is no number is left for vLLM to refuse."""
    parts = (arguments.get(name, 1) for name in ("tensor_parallel_size", "pipeline_parallel_size"))
    return math.prod(max(each, 1) for each in parts if isinstance(each, int))


def gpu_count(spec: StageSpec) -> int:
    """GPUs that the stage asks for, at least one."""
    gpu = spec.resources.hardware.gpu
    return max(gpu.count if gpu is not None else 1, 1)
