"""What must hold between the parts of a stage, and between a document and its stages."""

from __future__ import annotations

from functools import partial
from typing import Any

from mloc_tasks.spec.expressions import has_expression
from mloc_tasks.spec.model.training import Training
from mloc_tasks.spec.names import did_you_mean, shown
from mloc_tasks.spec.origins import Origin, Origins
from mloc_tasks.spec.stages import Draft
from mloc_tasks.spec.task_types import BUILT_IN, KINDS, WORKFLOW_KIND, TaskType, TaskTypes
from mloc_tasks.spec.training_arguments import (
    METHOD_OF_TASK,
    PPO_ARGUMENTS,
    ArgumentError,
    all_arguments,
    argument_value,
    arguments_of,
    is_of_another_method,
    methods_with,
)


def check_task_type(draft: Draft, types: TaskTypes, origins: Origins) -> None:
    """The stage's task type is one that something here takes."""
    found = draft.document.get("task_type")
    here = draft.place(origins, "task_type")
    if found is None:
        origins.report(draft.origin, f"stage `{draft.name}` has no `taskType`", f"it is one of {', '.join(BUILT_IN)}")
    elif not isinstance(found, str):
        origins.report(here, f"{shown(found)} is not a task type", f"it is one of {', '.join(types.names())}")
    elif not types.known(found) and not has_expression(found):
        near = did_you_mean(found, types.names())
        message = f"unknown task type {shown(found)}"
        origins.report(here, message, f"{near} " * bool(near) + f"known are {', '.join(types.names())}")


def check_kind(kind: Any, here: Origin, drafts: list[Draft], types: TaskTypes, origins: Origins) -> None:
    """`kind` fits at least one stage. Kinds of plugins' documents are the plugins' own."""
    task_types = [str(draft.document.get("task_type")) for draft in drafts]
    if kind in (None, WORKFLOW_KIND) or not isinstance(kind, str):
        return
    if kind not in KINDS:
        if not any(types.is_plugin(name) for name in task_types):
            near = did_you_mean(kind, KINDS) or f"known are {', '.join(KINDS)}"
            origins.report(here, f"unknown kind {shown(kind)}", near)
        return
    known = [BUILT_IN[name] for name in task_types if name in BUILT_IN]
    if len(known) < len(task_types) or any(kind in found.kinds for found in known):
        return
    several = "these stages' taskTypes are" if len(known) > 1 else "spec.taskType is"
    fits = " or ".join(dict.fromkeys([*(found.kinds[0] for found in known), *["Workflow"] * (len(known) > 1)]))
    names = ", ".join(dict.fromkeys(task_types))
    origins.report(here, f"kind {kind} contradicts the task type: {several} {names}", f"write kind: {fits}")


def check_parts(draft: Draft, by_name: dict[str, Draft], origins: Origins) -> None:
    """A built-in task type has the parts it cannot do without, and its rows come from somewhere."""
    known = BUILT_IN.get(str(draft.document.get("task_type")))
    if known is None:
        return
    if known.takes_rows and _lacks_data(draft, origins):
        _read_upstream(draft, by_name, origins)
    elif known.takes_rows and draft.in_sequence and not draft.own_data and draft.depends_on:
        _warn_of_shared_data(draft, by_name, origins)
    if known.needs_model and not _has_model(draft.document):
        origins.report(
            draft.origin,
            f"stage `{draft.name}` ({known.name}) has no model",
            "add model: {source: {identifier: ...}}",
        )
    if known.needs_data and _lacks_data(draft, origins):
        _report_missing_data(draft, known, origins)
    if known.needs_reward:
        _check_reward(draft, known, origins)


def _check_reward(draft: Draft, known: TaskType, origins: Origins) -> None:
    """Something scores completions."""
    advice = "add reward_model: {type: sentiment | classifier | function, identifier: ...}"
    training = _mapping(draft.document.get("training"))
    if known.name == "grpo":
        advice += ", or training.reward_functions: [module:function]"
        if training.get("reward_functions"):
            return
    if not draft.document.get("reward_model"):
        origins.report(draft.origin, f"stage `{draft.name}` ({known.name}) has nothing that scores completions", advice)


def _lacks_data(draft: Draft, origins: Origins) -> bool:
    """Whether there is no `data`. One that is written down wrongly counts: that is a problem of its own."""
    if draft.document.get("data") is not None:
        return False
    return "data" not in draft.document or not origins.refused(draft.place(origins, "data"))


def _report_missing_data(draft: Draft, known: TaskType, origins: Origins) -> None:
    advice = "add data: {type: dataset | file | list | stage, ...}"
    if known.takes_rows and draft.depends_on:
        advice = f"to read an upstream stage's items add data: {{type: stage, stage: {draft.depends_on[0]}}}"
    origins.report(draft.origin, f"stage `{draft.name}` ({known.name}) has no `data`", advice)


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _has_model(document: dict[str, Any]) -> bool:
    """Whether a model is named. One that is written down wrongly counts: that is a problem of its own."""
    model, checkpoint = document.get("model"), _mapping(document.get("checkpoint"))
    named = model is not None and (not isinstance(model, dict) or model.get("source") is not None)
    return named or checkpoint.get("load") is not None


def _read_upstream(draft: Draft, by_name: dict[str, Draft], origins: Origins) -> None:
    """In a sequence of inference stages, inputs are the outputs of the one before: write that down."""
    if len(draft.depends_on) == 1 and _is_inference(draft.depends_on[0], by_name):
        data = {"type": "stage", "stage": draft.depends_on[0]}
        origins.record(data, dict.fromkeys(data, draft.origin))
        draft.document["data"] = data


def _warn_of_shared_data(draft: Draft, by_name: dict[str, Draft], origins: Origins) -> None:
    upstream = draft.depends_on[0]
    if _is_inference(upstream, by_name):
        origins.report(
            draft.origin,
            f"stage `{draft.name}` reads the `data` that stands at spec level, like the stage before it",
            f"for the outputs of `{upstream}` write data: {{type: stage, stage: {upstream}}}",
            severity="warning",
        )


def _is_inference(name: str, by_name: dict[str, Draft]) -> bool:
    return name in by_name and by_name[name].document.get("task_type") == "inference"


def check_training(draft: Draft, origins: Origins) -> None:
    """The keys of `training` that are not MLOC's own are arguments of the method, of the right kind."""
    training = draft.document.get("training")
    task_type = str(draft.document.get("task_type"))
    known = BUILT_IN.get(task_type)
    if not isinstance(training, dict) or known is None or not known.trains:
        # A plugin's training may have keys of its own.
        return
    ours = Training.model_fields
    for key, value in training.items():
        here = draft.place(origins, "training", key)
        if key in ours:
            owner = "ppo" if key in Training.ppo_only else "grpo" if key == "reward_functions" else task_type
            if owner != task_type and key not in arguments_of(task_type):
                _warn_unused(key, task_type, here, origins)
            continue
        if key not in all_arguments():
            written = str(here.path[-1])
            origins.report(here, f"unknown key `{written}`", partial(_training_advice, written, task_type))
        elif not has_expression(value):
            _check_argument(key, value, task_type, here, origins)


def _training_advice(written: str, task_type: str) -> str:
    names = [*Training.model_fields, *arguments_of(task_type), *Training.other_names]
    return did_you_mean(written, names, like=written) or "`training.extra` takes arguments of other versions"


def _check_argument(key: str, value: Any, task_type: str, here: Origin, origins: Origins) -> None:
    if is_of_another_method(key, task_type) or (task_type == "ppo" and key not in PPO_ARGUMENTS):
        _warn_unused(key, task_type, here, origins)
    try:
        argument_value(value, arguments_of(task_type).get(key) or all_arguments()[key])
    except ArgumentError as error:
        origins.report(here, str(error))


def _warn_unused(key: str, task_type: str, here: Origin, origins: Origins) -> None:
    owners = ["grpo"] if key == "reward_functions" else ["ppo"] * (key in Training.ppo_only) + methods_with(key)
    belongs = f"it is an argument of {', '.join(owners)}" if owners else "it is an argument of TRL's trainers"
    if task_type in METHOD_OF_TASK or task_type == "ppo":
        origins.report(here, f"`{key}` is not used by {task_type}", belongs, severity="warning")


def check_output(draft: Draft, origins: Origins) -> None:
    """An absolute output path works only where an operator allows it."""
    destination = _mapping(_mapping(draft.document.get("output")).get("destination"))
    path = destination.get("path")
    if isinstance(path, str) and path.startswith("/") and destination.get("type", "local") == "local":
        origins.report(
            draft.place(origins, "output", "destination", "path"),
            f"{path!r} is an absolute path",
            "it works only where MLOC_OUTPUT_ROOTS allows it",
            severity="warning",
        )
