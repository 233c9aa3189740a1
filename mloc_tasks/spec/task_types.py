"""The task types that are built in, and what the language knows about each."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

_ITEMS = frozenset({"ok", "model", "items", "usage", "items_truncated", "items_total", "items_parts", "items_failed"})
_SCORED = _ITEMS | {"metrics", "summary"}
_EMBEDDED = _ITEMS | {"dimensions", "pooling", "normalized", "embeddings_file"}
_TRAINED = frozenset(
    {
        "ok",
        "model",
        "steps",
        "metrics",
        "train_seconds",
        "metrics_url",
        "final_model_url",
        "final_model_archive_url",
        "final_lora_url",
        "final_lora_archive_url",
    }
)


@dataclass(frozen=True, slots=True)
class TaskType:
    """One built-in task type.

    Attributes:
        kinds: values of the document's `kind` that fit it.
        result_fields: top-level names of its result; None when they are not fixed.
        needs_model, needs_data, needs_reward: which parts of the spec it cannot do without.
        takes_rows: in a sequence it works on the items of the stage before it.
        trains: it reads `training`.
    """

    name: str
    kinds: tuple[str, ...]
    result_fields: frozenset[str] | None = None
    needs_model: bool = True
    needs_data: bool = True
    needs_reward: bool = False
    takes_rows: bool = False
    trains: bool = False


def _trainer(name: str, *kinds: str, needs_reward: bool = False, more: Collection[str] = ()) -> TaskType:
    kinds = (*kinds, "TrainingTask")
    return TaskType(name, kinds, _TRAINED.union(more), needs_reward=needs_reward, trains=True)


BUILT_IN: dict[str, TaskType] = {
    found.name: found
    for found in (
        TaskType("inference", ("InferenceTask",), _ITEMS, takes_rows=True),
        _trainer("sft", "SFTTask"),
        _trainer("lora_sft", "LoRASFTTask", "LoRATask"),
        _trainer("dpo", "DPOTask"),
        _trainer("ppo", "PPOTask", needs_reward=True, more=("performance",)),
        _trainer("grpo", "GRPOTask", needs_reward=True),
        _trainer("reward", "RewardTask", "RewardModelTask"),
        TaskType("evaluate", ("EvaluateTask", "EvaluationTask"), _SCORED, needs_model=False, takes_rows=True),
        TaskType("embedding", ("EmbeddingTask",), _EMBEDDED, takes_rows=True),
        TaskType("echo", ("EchoTask",), needs_model=False, needs_data=False),
    )
}

WORKFLOW_KIND = "Workflow"
KINDS = tuple(dict.fromkeys([*(kind for found in BUILT_IN.values() for kind in found.kinds), WORKFLOW_KIND]))
"""Every `kind` that says something about the task type; `Workflow` fits all."""

GROUP = "mloc.executors"


def installed_task_types() -> frozenset[str]:
    """Task types of installed plugins: names of entry points of group `mloc.executors`, MLOC's own left out."""
    from importlib.metadata import entry_points

    return frozenset(entry.name for entry in entry_points(group=GROUP) if not entry.module.startswith("mloc_tasks."))


class TaskTypes:
    """The task types of this installation; plugins are looked for only when a name is not built in."""

    def __init__(self, plugins: Collection[str] | None = None) -> None:
        self._plugins = None if plugins is None else frozenset(plugins)

    @property
    def plugins(self) -> frozenset[str]:
        """Names that installed executors bring."""
        if self._plugins is None:
            self._plugins = installed_task_types()
        return self._plugins - BUILT_IN.keys()

    def known(self, name: str) -> bool:
        """Whether something here takes this task type."""
        return name in BUILT_IN or name in self.plugins

    def is_plugin(self, name: object) -> bool:
        """Whether an installed executor, and no built-in one, takes this task type."""
        return isinstance(name, str) and name not in BUILT_IN and name in self.plugins

    def names(self) -> list[str]:
        """All of them, the built-in ones first."""
        return [*BUILT_IN, *sorted(self.plugins)]
