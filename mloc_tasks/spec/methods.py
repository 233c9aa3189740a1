"""What a training method can do with the parts of its stage, said at submit and not after an hour in a queue."""

from __future__ import annotations

from mloc_tasks.spec.model.data import GraphTemplateData, ListData, PreferencesData
from mloc_tasks.spec.model.stage import StageSpec
from mloc_tasks.spec.origins import Origins
from mloc_tasks.spec.stages import Draft
from mloc_tasks.spec.task_types import BUILT_IN

_PAIRED = frozenset({"dpo", "reward"})
_IMITATING = frozenset({"sft", "lora_sft"})


def check_method(draft: Draft, spec: StageSpec, origins: Origins) -> None:
    """A training is one whole, of all weights or of an adapter, and its rows are of the kind that it learns from."""
    known = BUILT_IN.get(spec.task_type)
    if known is None or not known.trains:
        return
    if spec.parallel.enabled:
        origins.report(
            draft.place(origins, "parallel"),
            f"stage `{draft.name}` ({spec.task_type}) trains one model and cannot be split into shards",
            "for several processes set training.nproc_per_node, or resources.hardware.gpu.count; where `parallel` "
            f"comes from the spec level write parallel: {{enabled: false}} in `{draft.name}`",
        )
    _check_weights(draft, spec, origins)
    _check_rows(draft, spec, origins)


def _check_weights(draft: Draft, spec: StageSpec, origins: Origins) -> None:
    if spec.training is None or spec.training.finetuning_type != "full":
        return
    here = draft.place(origins, "training", "finetuning_type")
    if spec.task_type == "lora_sft":
        origins.report(here, "`full` contradicts the task type lora_sft", "write taskType: sft")
    elif spec.lora is not None:
        origins.report(
            here,
            "`full` contradicts the `lora` block",
            f"keep one; a `lora` block of the spec level is taken out by lora: null in `{draft.name}`",
        )


def _check_rows(draft: Draft, spec: StageSpec, origins: Origins) -> None:
    data, here = spec.data, draft.place(origins, "data")
    if spec.task_type in _PAIRED and isinstance(data, ListData | GraphTemplateData):
        origins.report(
            here,
            f"stage `{draft.name}` ({spec.task_type}) learns from pairs of answers, and these are single texts",
            "write data: {preferences: [{prompt, chosen, rejected}]}, or name a file or a dataset with such columns",
        )
    elif spec.task_type in _IMITATING and isinstance(data, PreferencesData) and data.response_column is None:
        origins.report(
            here,
            f"stage `{draft.name}` ({spec.task_type}) learns from one answer, and these are pairs",
            "to learn the better ones add response_column: chosen",
        )
