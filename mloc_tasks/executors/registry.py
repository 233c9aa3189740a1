"""Which executor does a task type: the built-in table, and plugins found by their entry points.

An entry point of group `mloc.executors` is named after the task type it serves; a class that takes several is
registered under each. Names are read from package metadata alone, so listing them imports no executor.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from mloc_tasks.capabilities import Requirement
from mloc_tasks.errors import ConfigError, PlanError
from mloc_tasks.executors.base import Executor

if TYPE_CHECKING:
    from mloc_tasks.spec import StageSpec

ENTRY_POINT_GROUP = "mloc.executors"
OWN_DISTRIBUTION = "mloc"

VLLM = "mloc_tasks.executors.vllm:VllmExecutor"
TRANSFORMERS = "mloc_tasks.executors.transformers:TransformersExecutor"
EMBEDDING = "mloc_tasks.executors.embedding:EmbeddingExecutor"
VLLM_EMBEDDING = "mloc_tasks.executors.embedding:VllmEmbeddingExecutor"
SFT = "mloc_tasks.executors.trl:SftExecutor"
CHOSEN_BY = frozenset({"model", "inference", "resources", "enforce_cpu"})
"""What of a stage's spec decides between executors of one task type."""
STRUCTURED_OUTPUT = ("json_schema", "regex", "choice")

# Kept here as well as in our package metadata, so that a checkout that is not installed finds them too.
BUILT_IN: Mapping[str, str] = {
    "echo": "mloc_tasks.executors.echo:EchoExecutor",
    "inference": TRANSFORMERS,  # or vLLM: see `_inference_target`
    "evaluate": "mloc_tasks.executors.evaluate:EvaluateExecutor",
    "embedding": EMBEDDING,  # or vLLM: see `_embedding_target`
    "sft": SFT,
    "lora_sft": SFT,
    "dpo": "mloc_tasks.executors.trl:DpoExecutor",
    "reward": "mloc_tasks.executors.trl:RewardExecutor",
    "grpo": "mloc_tasks.executors.trl:GrpoExecutor",
    "ppo": "mloc_tasks.executors.ppo:PpoExecutor",
}


@dataclass(frozen=True, kw_only=True)
class Registration:
    """One name under which an executor is found; `target` is `module:Class`."""

    task_type: str
    target: str
    distribution: str

    def load(self) -> type[Executor]:
        """Import the class. Raises ConfigError when it cannot be imported or is no executor of this task type."""
        where = f"executor {self.task_type!r} of {self.distribution} ({self.target})"
        module_name, _, attribute = self.target.partition(":")
        try:
            found = getattr(importlib.import_module(module_name), attribute)
        except (ImportError, AttributeError) as error:
            raise ConfigError(
                f"{where} cannot be imported: {error}", hint="repair or uninstall that package"
            ) from error
        if not (isinstance(found, type) and issubclass(found, Executor)):
            raise ConfigError(f"{where} is not a subclass of mloc_tasks.executors.Executor")
        if self.task_type not in found.takes():
            takes = ", ".join(found.takes())
            raise ConfigError(f"{where} takes the task types {takes}; its entry point must have one of these names")
        return found


def executor_for(spec: StageSpec) -> Executor:
    """A new executor for a stage. Raises PlanError where none serves it, ConfigError for a broken plugin."""
    return executor_class(spec.task_type, spec.model_dump(include=set(CHOSEN_BY)))()


def executor_class(task_type: str, document: Mapping[str, Any] | None = None) -> type[Executor]:
    """The class that does a stage of `task_type` here, imported. Raises as `executor_for`.

    Args:
        document: the stage's merged spec with snake_case keys, where its task type has several executors.
    """
    registration = find(task_type)
    if registration is None:
        raise PlanError(_missing(task_type))
    if task_type == "inference":
        registration = replace(registration, target=_inference_target(document or {}))
    if task_type == "embedding":
        registration = replace(registration, target=_embedding_target(document or {}))
    return _load(registration)


def find(task_type: str) -> Registration | None:
    """The registration for `task_type` without importing it. Raises ConfigError when two distributions claim it."""
    found = _scan(tuple(sys.path)).get(task_type, ())
    if len(found) > 1:
        claims = " and ".join(f"{each.distribution} ({each.target})" for each in found)
        raise ConfigError(
            f"the executor name {task_type!r} is registered by {claims}", hint="uninstall or rename one of them"
        )
    return found[0] if found else None


def registered() -> dict[str, Registration]:
    """Every task type that can run here, by name. Raises ConfigError when two distributions claim one name."""
    found = {name: find(name) for name in sorted(_scan(tuple(sys.path)))}
    return {name: each for name, each in found.items() if each is not None}


def plugin_task_types() -> frozenset[str]:
    """Task types that installed plugins add to the language."""
    return frozenset(name for name in _scan(tuple(sys.path)) if name not in BUILT_IN)


def is_light(task_type: str) -> bool:
    """Whether every stage of the type takes milliseconds, as far as it is known without importing a plugin."""
    return task_type in BUILT_IN and executor_class(task_type).light


def missing_reason(task_type: str, document: Mapping[str, Any]) -> str | None:
    """Why a stage cannot run, or None when it can, here or on a worker that has what is not installed here.

    `document` is the stage's merged spec with snake_case keys, as in `Stage.document`.
    """
    if find(task_type) is None:
        return _missing(task_type)
    return executor_class(task_type, document).unsupported(document) if task_type in BUILT_IN else None


def _missing(task_type: str) -> str:
    available = f"available here: {', '.join(sorted(registered()))}"
    return (
        f"no executor for task type {task_type!r} is installed; {available}. A plugin adds one by an entry point "
        f"of group {ENTRY_POINT_GROUP!r}"
    )


def _inference_target(document: Mapping[str, Any]) -> str:
    """A `vllm` block means vLLM, a `transformers` block Transformers; without them it is what the stage needs or fits.

    Structured output is what vLLM alone can do, whether it is installed here or on the worker. What fits goes by the
    GPUs that the stage asks for, as its host gets no others, not by those of the machine.
    """
    from mloc_tasks.executors.vllm.availability import fits

    model, inference = document.get("model") or {}, document.get("inference") or {}
    if model.get("vllm") is not None:
        return VLLM
    if model.get("transformers") is not None:
        return TRANSFORMERS
    if any(inference.get(key) is not None for key in STRUCTURED_OUTPUT):
        return VLLM
    gpus = Requirement.of_document(document).gpus
    return VLLM if fits(gpus=gpus.count if gpus is not None else 0) else TRANSFORMERS


def _embedding_target(document: Mapping[str, Any]) -> str:
    """vLLM where a `vllm` block asks for it: not every model that makes vectors is one that it knows."""
    model = document.get("model") or {}
    return VLLM_EMBEDDING if model.get("vllm") is not None else EMBEDDING


@lru_cache(maxsize=8)
def _scan(path: tuple[str, ...]) -> dict[str, tuple[Registration, ...]]:
    """All registrations by name. Keyed by `sys.path`, because that is what decides which distributions are visible."""
    found = {
        name: [Registration(task_type=name, target=target, distribution=OWN_DISTRIBUTION)]
        for name, target in BUILT_IN.items()
    }
    for point in entry_points(group=ENTRY_POINT_GROUP):
        distribution = point.dist.name if point.dist is not None else "an unnamed distribution"
        if distribution != OWN_DISTRIBUTION:
            each = Registration(task_type=point.name, target=point.value, distribution=distribution)
            # One distribution can be seen twice when two entries of sys.path lead to it.
            if each not in (known := found.setdefault(point.name, [])):
                known.append(each)
    return {name: tuple(each) for name, each in found.items()}


@lru_cache(maxsize=64)
def _load(registration: Registration) -> type[Executor]:
    return registration.load()
