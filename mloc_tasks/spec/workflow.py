"""A document, loaded: its stages merged, connected, validated and typed."""

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from mloc_tasks.spec.checks import check_kind, check_output, check_parts, check_task_type, check_training
from mloc_tasks.spec.dependencies import connect
from mloc_tasks.spec.environment import Environment
from mloc_tasks.spec.keys import Canonical
from mloc_tasks.spec.methods import check_method
from mloc_tasks.spec.model.document import API_VERSION, LABEL, Document, Metadata
from mloc_tasks.spec.model.stage import StageSpec
from mloc_tasks.spec.names import shown
from mloc_tasks.spec.origins import Origin, Origins
from mloc_tasks.spec.outcomes import check_scoring, check_vectors
from mloc_tasks.spec.problems import Problem, SpecError
from mloc_tasks.spec.source import LARGEST_DOCUMENT, Source, read_bytes, read_mapping, read_text
from mloc_tasks.spec.stages import Draft, StageReader
from mloc_tasks.spec.task_types import TaskTypes
from mloc_tasks.spec.validation import validate_model, validate_stage


class Stage(BaseModel):
    """One stage of a workflow.

    Attributes:
        name: what other stages and results call it.
        depends_on: the stages that end before it starts: written, implied and made by references.
        document: its merged spec as plain JSON values with canonical snake_case keys; references are still text.
            Parts may be shared between stages: read it, do not change it.
        spec: the same, typed; a value that is still a reference is left out where it is no text.
    """

    model_config = ConfigDict(frozen=True, defer_build=True)

    name: str
    depends_on: tuple[str, ...]
    document: dict[str, Any]
    spec: StageSpec


class Workflow(BaseModel):
    """A valid document. A single task is a workflow of one stage, named after its task type."""

    model_config = ConfigDict(frozen=True, defer_build=True, arbitrary_types_allowed=True)

    api_version: str
    kind: str
    metadata: Metadata
    stages: tuple[Stage, ...]
    on_failure: Literal["stop", "continue"]
    warnings: tuple[Problem, ...]

    def stage(self, name: str) -> Stage:
        """The stage of that name. Raises `KeyError`."""
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise KeyError(name)


def load_workflow(
    source: str | bytes | Path | Mapping[str, Any],
    *,
    env: Mapping[str, str] | None = None,
    env_allow: Collection[str] = (),
    plugin_task_types: Collection[str] | None = None,
    default_models: Mapping[str, str] | None = None,
) -> Workflow:
    """Read, merge and validate a document.

    Args:
        source: YAML text (str or UTF-8 bytes), a file, or the document as Python values.
        env: values for `${env.NAME}`, put in now.
        env_allow: the names that `${env.NAME}` may use.
        plugin_task_types: task types of installed plugins; by default looked up when one is met.
        default_models: task type -> model identifier for stages that name no model.

    Raises `SpecError`, whose `problems` are all that were found, and `OSError` for a file that cannot be read.
    """
    text = _read(source)
    origins = Origins(text)
    if not isinstance(text.document, dict):
        advice = 'it begins with "apiVersion: mloc/v1"'
        if isinstance(source, str) and source.endswith((".yaml", ".yml")):
            advice = "to read a file, pass a pathlib.Path"
        origins.report(origins.top, f"a spec is a mapping, not {shown(text.document)}", advice)
        raise SpecError(origins.problems)
    Environment(env or {}, env_allow, origins).fill_in(text.document)
    loader = _Loader(origins, TaskTypes(plugin_task_types), default_models or {})
    workflow = loader.load(text.document)
    if workflow is None or origins.errors():
        raise SpecError(origins.errors())
    return workflow


def _read(source: str | bytes | Path | Mapping[str, Any]) -> Source:
    if isinstance(source, Path):
        with source.open("rb") as file:
            return read_bytes(file.read(LARGEST_DOCUMENT + 1))
    if isinstance(source, bytes):
        return read_bytes(source)
    return read_text(source) if isinstance(source, str) else read_mapping(source)


class _Loader:
    """The steps from a canonical document to a workflow."""

    def __init__(self, origins: Origins, types: TaskTypes, default_models: Mapping[str, str]) -> None:
        self._origins = origins
        self._types = types
        self._default_models = default_models

    def load(self, raw: dict[str, Any]) -> Workflow | None:
        """The workflow, or None; in both cases problems are in `origins`."""
        origins = self._origins
        spec = raw.get("spec")
        shell = {key: value for key, value in raw.items() if key != "spec"}
        origins.record(shell, {key: origins.inside(raw, key, origins.top) for key in shell})
        document = Canonical(origins).mapping(shell, Document, origins.top)
        self._check_version(document)
        metadata = self._metadata(document)
        here = origins.inside(raw, "spec", origins.top)
        if not isinstance(spec, dict):
            message = "`spec` is missing" if spec is None else f"`spec` must be a mapping, not {shown(spec)}"
            origins.report(here, message)
            return None
        drafts, on_failure = StageReader(origins, self._types).read(spec, here)
        kind = self._kind(document, drafts)
        connect(drafts, origins)
        by_name = {draft.name: draft for draft in drafts}
        stages = [stage for draft in drafts if (stage := self._stage(draft, by_name)) is not None]
        if origins.errors() or metadata is None:
            return None
        return Workflow.model_construct(
            api_version=API_VERSION,
            kind=kind,
            metadata=metadata,
            stages=tuple(stages),
            on_failure="continue" if on_failure == "continue" else "stop",
            warnings=tuple(origins.warnings()),
        )

    def _check_version(self, document: dict[str, Any]) -> None:
        version = document.get("api_version")
        here = self._origins.inside(document, "api_version", self._origins.top)
        if version is None:
            self._origins.report(here._replace(path=("apiVersion",)), "`apiVersion` is missing", f"write {API_VERSION}")
        elif version != API_VERSION:
            self._origins.report(here, f"{shown(version)} is not a version of this language", f"write {API_VERSION}")

    def _metadata(self, document: dict[str, Any]) -> Metadata | None:
        origins = self._origins
        here = origins.inside(document, "metadata", origins.top)
        value = document.get("metadata")
        if value is None:
            origins.report(here._replace(path=("metadata",)), "`metadata` is missing", "add metadata: {name: ...}")
            return None
        metadata: Metadata | None = validate_model(Metadata, value, here, origins)
        if metadata is not None and not re.fullmatch(LABEL, metadata.name):
            name = origins.inside(value, "name", here)
            better = re.sub(r"[^a-z0-9.-]+", "-", metadata.name.lower()).strip("-.")
            advice = f"try '{better}'" if re.fullmatch(LABEL, better) else "use lower-case letters, digits and -"
            origins.report(name, f"{shown(metadata.name)} is not a name for a run", advice)
        return metadata

    def _kind(self, document: dict[str, Any], drafts: list[Draft]) -> str:
        kind = document.get("kind")
        here = self._origins.inside(document, "kind", self._origins.top)
        if kind is not None and not isinstance(kind, str):
            self._origins.report(here, f"{shown(kind)} must be text")
        check_kind(kind, here, drafts, self._types, self._origins)
        return kind if isinstance(kind, str) else "Workflow"

    def _stage(self, draft: Draft, by_name: dict[str, Draft]) -> Stage | None:
        origins = self._origins
        self._add_default_model(draft)
        check_task_type(draft, self._types, origins)
        check_parts(draft, by_name, origins)
        check_training(draft, origins)
        check_output(draft, origins)
        if draft.document.get("task_type") is None:
            # Reported already; the other parts are worth checking all the same.
            validate_stage({**draft.document, "task_type": "echo"}, draft.origin, origins)
            return None
        spec = validate_stage(draft.document, draft.origin, origins)
        if spec is None:
            return None
        check_scoring(draft, spec, origins)
        check_vectors(draft, spec, origins)
        check_method(draft, spec, origins)
        return Stage.model_construct(
            name=draft.name, depends_on=tuple(draft.depends_on), document=draft.document, spec=spec
        )

    def _add_default_model(self, draft: Draft) -> None:
        document = draft.document
        identifier = self._default_models.get(str(document.get("task_type")))
        model, checkpoint = document.get("model"), document.get("checkpoint")
        if (
            identifier is None
            or not isinstance(model, dict | None)
            or (isinstance(checkpoint, dict) and checkpoint.get("load"))
        ):
            return
        if model is None or model.get("source") is None:
            added = {**(model or {}), "source": {"type": "huggingface", "identifier": identifier}}
            here: Origin = draft.place(self._origins, "model")
            self._origins.record(added, {key: self._origins.inside(model or {}, key, here) for key in added})
            document["model"] = added
