"""The stages of a document: found, named, and merged over the document's defaults."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from mloc_tasks.spec.keys import Canonical
from mloc_tasks.spec.merge import merged, rows_in_one_place, size_of
from mloc_tasks.spec.model.document import STAGE_NAME, SpecBody, StageEntry
from mloc_tasks.spec.model.stage import StageSpec
from mloc_tasks.spec.names import did_you_mean, shown, snake_case
from mloc_tasks.spec.origins import Origin, Origins, Step
from mloc_tasks.spec.task_types import TaskTypes

MOST_STAGES = 2_000
LARGEST_MERGED = 16 * 2**20
"""Bytes of all stages with their defaults written out."""

_NOT_DEFAULTS = ("stages", "graph", "on_failure")
_HOME_OF = {
    "gpu": "resources.hardware", "cpu": "resources.hardware", "memory": "resources.hardware",
    "hardware": "resources", "replicas": "resources", "tags": "resources",
    "prompts": "data", "items": "data", "identifier": "model.source", "source": "model", "vllm": "model",
    "transformers": "model", "adapters": "model", "destination": "output", "artifacts": "output",
    "max_tokens": "inference", "max_new_tokens": "inference", "temperature": "inference", "nodes": "graph",
    "learning_rate": "training", "batch_size": "training", "steps": "training",
}  # fmt: skip
"""Keys that are often put one level too high -> where they belong."""
_NOT_STAGE_SPEC = ("name", "depends_on", "spec")


@dataclass(slots=True)
class Draft:
    """A stage on its way to becoming one.

    Attributes:
        explicit: what its `dependsOn` names; None when it has none.
        explicit_origin: where that stands.
        document: its merged spec, canonical.
        unknown: keys of its own at the top of the spec that the language does not know, and where they stand.
        in_sequence: whether it stands in `stages`, so that the one before it is implied.
        own_data: whether it says itself where its rows come from (the document's defaults do not count).
        depends_on: what it waits for, complete.
    """

    name: str
    origin: Origin
    explicit: list[str] | None
    explicit_origin: Origin
    document: dict[str, Any]
    unknown: dict[str, Origin] = field(default_factory=dict)
    in_sequence: bool = False
    own_data: bool = False
    depends_on: list[str] = field(default_factory=list)

    def place(self, origins: Origins, *location: Step) -> Origin:
        """The origin of a value of its document."""
        return origins.of(self.document, location, self.origin)[0]


class StageReader:
    """Turns `spec` into drafts. Problems go to `origins`."""

    def __init__(self, origins: Origins, types: TaskTypes) -> None:
        self._origins = origins
        self._types = types
        self._canonical = Canonical(origins)

    def read(self, spec: dict[str, Any], origin: Origin) -> tuple[list[Draft], str]:
        """The drafts in the order of the document, and `on_failure`."""
        unknown: dict[str, Origin] = {}
        body: dict[str, Any] = self._canonical.mapping(spec, SpecBody, origin, unknown=unknown)
        on_failure = body.get("on_failure", "stop")
        if on_failure not in ("stop", "continue"):
            here = self._origins.inside(body, "on_failure", origin)
            self._origins.report(here, f"{shown(on_failure)} is not one of stop, continue")
        defaults = {key: value for key, value in body.items() if key not in _NOT_DEFAULTS}
        self._origins.record(defaults, {key: self._origins.inside(body, key, origin) for key in defaults})
        defaults = rows_in_one_place(defaults, origin, self._origins)
        if body.get("stages") is None and body.get("graph") is None:
            drafts = [self._single(defaults, origin)]
        else:
            drafts = self._several(body, origin, defaults)
        self._settle_unknown(unknown, drafts)
        for draft in drafts:
            if "data" in draft.document:
                draft.document["data"] = self._canonical.data(
                    draft.document["data"], draft.place(self._origins, "data"), final=True
                )
        return drafts, on_failure

    def _single(self, document: dict[str, Any], origin: Origin) -> Draft:
        task_type = document.get("task_type")
        name = task_type if isinstance(task_type, str) and re.match(STAGE_NAME, task_type) else "stage"
        return Draft(name, origin, [], origin, document, own_data="data" in document)

    def _several(self, body: dict[str, Any], origin: Origin, defaults: dict[str, Any]) -> list[Draft]:
        entries, places, in_sequence = self._entries(body, origin)
        if len(entries) > MOST_STAGES or size_of(defaults) * len(entries) > LARGEST_MERGED:
            advice = "move large defaults (inline prompts) into the stage that needs them, or into a file"
            self._origins.report(origin, f"{len(entries)} stages with these defaults are too large", advice)
            return []
        drafts: list[Draft] = []
        first: dict[str, Origin] = {}
        for position, entry in enumerate(entries):
            place = places[position]
            if not isinstance(entry, dict):
                self._origins.report(place, f"a stage must be a mapping, not {shown(entry)}", "write `- name: ...`")
                continue
            draft = self._stage(entry, place, f"stage-{position + 1}", defaults, origin)
            draft.in_sequence = in_sequence
            if draft.name in first:
                where = first[draft.name].mark
                line = f" (the other on line {where.line})" if where else ""
                here = self._origins.inside(entry, "name", place)
                self._origins.report(here, f"two stages are called `{draft.name}`{line}", "names are unique")
                continue
            first[draft.name] = place
            drafts.append(draft)
        return drafts

    def _entries(self, body: dict[str, Any], origin: Origin) -> tuple[list[Any], list[Origin], bool]:
        """The list of stages, where each stands, and whether it is a sequence."""
        stages, graph = body.get("stages"), body.get("graph")
        here = self._origins.inside(body, "stages" if stages is not None else "graph", origin)
        if stages is not None and graph is not None:
            both = self._origins.inside(body, "graph", origin)
            self._origins.report(both, "`stages` and `graph` exclude each other", "keep one")
        if stages is None:
            if not isinstance(graph, dict) or "nodes" not in graph:
                self._origins.report(here, "`graph` must be a mapping with a list of `nodes`")
                return [], [], False
            stages, here = graph["nodes"], self._origins.inside(graph, "nodes", here)
        if not isinstance(stages, list) or not stages:
            self._origins.report(here, "must be a list with at least one stage")
            return [], [], False
        return stages, [self._origins.inside(stages, index, here) for index in range(len(stages))], graph is None

    def _stage(
        self, entry: dict[str, Any], origin: Origin, fallback: str, defaults: dict[str, Any], outer: Origin
    ) -> Draft:
        unknown: dict[str, Origin] = {}
        found: dict[str, Any] = self._canonical.mapping(entry, StageEntry, origin, unknown=unknown)
        inline = {key: value for key, value in found.items() if key not in _NOT_STAGE_SPEC}
        self._origins.record(inline, {key: self._origins.inside(found, key, origin) for key in inline})
        own = inline
        under = found.get("spec")
        if under is not None:
            here = self._origins.inside(found, "spec", origin)
            if isinstance(under, dict):
                under = self._canonical.mapping(under, StageSpec, here, unknown=unknown)
                for key in under.keys() & inline.keys():
                    place = self._origins.inside(under, key, here)
                    self._origins.report(place, f"`{key}` stands beside `name` and under `spec`", "keep one")
                own = merged(inline, under, origin, here, self._origins)
            else:
                self._origins.report(here, f"must be a mapping, not {shown(under)}")
        own = rows_in_one_place(own, origin, self._origins)
        document = merged(defaults, own, outer, origin, self._origins)
        name = self._name(found, origin, fallback)
        return Draft(
            name,
            origin,
            self._explicit(found, origin),
            self._origins.inside(found, "depends_on", origin),
            document,
            unknown,
            own_data="data" in own,
        )

    def _name(self, entry: dict[str, Any], origin: Origin, fallback: str) -> str:
        name = entry.get("name")
        here = self._origins.inside(entry, "name", origin)
        if name is None:
            self._origins.report(origin, "a stage needs a `name`")
        elif not isinstance(name, str):
            text = here.text or shown(name)
            self._origins.report(here, f"{text} must be text", f'quote it: "{text}"')
        elif not re.match(STAGE_NAME, name) or name.endswith("\n"):
            advice = "use letters, digits, - and _; at most 63 of them"
            self._origins.report(here, f"{shown(name)} cannot be a stage's name", advice)
        elif name == "env":
            self._origins.report(here, "a stage cannot be called `env`", "`${env.NAME}` is an environment variable")
        else:
            return name
        return fallback

    def _explicit(self, entry: dict[str, Any], origin: Origin) -> list[str] | None:
        value = entry.get("depends_on")
        if value is None:
            return None
        here = self._origins.inside(entry, "depends_on", origin)
        if isinstance(value, str):
            value = [value]
        if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
            self._origins.report(here, "must be a list of stage names")
            return None
        return list(dict.fromkeys(value))

    def _settle_unknown(self, unknown: dict[str, Origin], drafts: list[Draft]) -> None:
        """Keys that the language does not know belong to plugin stages; elsewhere they are mistakes.

        `unknown` are those of the defaults: a plugin stage makes them legitimate, and the other stages do without.
        """
        known_plugin = any(self._types.is_plugin(draft.document.get("task_type")) for draft in drafts)
        for draft in drafts:
            if self._types.is_plugin(draft.document.get("task_type")):
                continue
            for key in unknown:
                draft.document.pop(key, None)
            for key, origin in draft.unknown.items():
                draft.document.pop(key, None)
                self._report_unknown(key, origin)
        if not known_plugin:
            for key, origin in unknown.items():
                self._report_unknown(key, origin)

    def _report_unknown(self, key: str, origin: Origin) -> None:
        inside = _HOME_OF.get(snake_case(key))
        self._origins.report(
            origin,
            f"unknown key `{key}`",
            f"it belongs under `{inside}`" if inside else partial(did_you_mean, key, SpecBody.model_fields, like=key),
        )


def suggest_stage(name: str, names: list[str]) -> str:
    """A suggestion for the name of a stage that there is not, out of the `names` that there are."""
    return did_you_mean(name, names) or f"there are {', '.join(names[:20])}"
