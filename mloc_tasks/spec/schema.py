"""The JSON Schema of the language, from which editors complete and explain keys."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from pydantic.json_schema import models_json_schema

from mloc_tasks.spec.model.base import SpecModel
from mloc_tasks.spec.model.data import DATA_FORMS
from mloc_tasks.spec.model.document import LABEL, STAGE_NAME
from mloc_tasks.spec.model.training import Training
from mloc_tasks.spec.names import camel_case
from mloc_tasks.spec.task_types import BUILT_IN, KINDS
from mloc_tasks.spec.training_arguments import all_arguments, methods_with

Schema = dict[str, Any]

_REFERENCE: Schema = {"type": "string", "pattern": r"\$\{[^{}]+\}"}
_BOOLEAN: Schema = {"enum": [True, False, "yes", "no", "on", "off", "true", "false"]}
_STAGE_LIKE = ("StageSpec", "StageEntry", "SpecBody")
"""Models that plugins add keys to."""
_WHOLE = ("Adapter", "TemplateColumn", "Template", "Preference", "Metadata", "Metric")
"""Models that are never merged, so that a key they need must stand in each of them."""


def json_schema() -> Schema:
    """JSON Schema (draft 2020-12) of a document, with every accepted spelling of each key."""
    models = _models()
    _, found = models_json_schema([(model, "validation") for model in models.values()], ref_template="#/$defs/{model}")
    definitions: dict[str, Schema] = found["$defs"]
    for name, schema in definitions.items():
        if name in models:
            _open_to_authors(schema, models[name], merged=name not in _WHOLE)
    for name in _STAGE_LIKE:
        _finish_stage(definitions[name])
    _finish_training(definitions["Training"])
    _finish_stages(definitions)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:mloc:spec:v1",
        "title": "mloc/v1",
        "description": "Large-language-model work: one task, or stages that depend on each other.",
        "type": "object",
        "properties": {
            "apiVersion": {"const": "mloc/v1", "description": "Always `mloc/v1`."},
            "api_version": {"const": "mloc/v1", "description": "Always `mloc/v1`."},
            "kind": {
                "anyOf": [{"enum": list(KINDS)}, {"type": "string"}],
                "description": "Describes the document; what runs is `spec.taskType`.",
            },
            "metadata": {"$ref": "#/$defs/Metadata"},
            "spec": {"$ref": "#/$defs/SpecBody"},
        },
        "anyOf": [{"required": ["apiVersion"]}, {"required": ["api_version"]}],
        "required": ["metadata", "spec"],
        "additionalProperties": False,
        "$defs": definitions,
    }


def _models() -> dict[str, type[SpecModel]]:
    """Every model that a document may hold, by its name."""
    pending: list[type[SpecModel]] = [SpecModel]
    found: dict[str, type[SpecModel]] = {}
    while pending:
        for model in pending.pop().__subclasses__():
            pending.append(model)
            found[model.__name__] = model
    return {name: model for name, model in found.items() if model.__module__.startswith("mloc_tasks.spec.model.")}


def _open_to_authors(schema: Schema, model: type[SpecModel], *, merged: bool) -> None:
    """Add the other spellings of each key and references in place of values; what merging brings is not required."""
    properties: dict[str, Schema] = schema.get("properties", {})
    others: dict[str, list[str]] = {}
    for other, name in model.other_names.items():
        others.setdefault(name, []).append(other)
    complete: dict[str, Schema] = {}
    required = []
    for name, value in properties.items():
        value.pop("title", None)
        admitted = _or_reference(value)
        spellings = list(dict.fromkeys([camel_case(name), name, *others.get(name, ())]))
        spellings = list(dict.fromkeys([*spellings, *map(camel_case, spellings)]))
        for spelling in spellings:
            complete[spelling] = deepcopy(admitted)
        if name in schema.get("required", ()):
            required.append({"anyOf": [{"required": [spelling]} for spelling in spellings]})
    for key, why in model.retired.items():
        for spelling in dict.fromkeys((key, camel_case(key))):
            complete[spelling] = {"description": f"Ignored: {why}.", "deprecated": True}
    schema["properties"] = complete
    schema.pop("required", None)
    if required and not merged:
        schema["allOf"] = required
    schema["additionalProperties"] = False


def _or_reference(value: Schema) -> Schema:
    """The schema of a value that may also be null (unset), a boolean in words, or a reference."""
    described: Schema = {key: value.pop(key) for key in ("description", "default", "examples") if key in value}
    if described.get("default", ...) in (None, ...):
        described.pop("default", None)
    if value.get("type") == "boolean":
        value = _BOOLEAN
    options = value.pop("anyOf", None) or ([value] if value else [])
    options = [_BOOLEAN if option.get("type") == "boolean" else option for option in options]
    if not options:
        return described
    nullable = [{"type": "null"}] if {"type": "null"} not in options else []
    return {**described, "anyOf": [*options, *nullable, _REFERENCE]}


def _finish_stage(schema: Schema) -> None:
    """Task types by name, and the short forms of `data`."""
    properties = schema["properties"]
    for key in ("taskType", "task_type"):
        described = properties[key].get("description", "")
        properties[key] = {"description": described, "anyOf": [{"enum": list(BUILT_IN)}, {"type": "string"}]}
    # Only a plugin's stage may have keys of its own.
    schema.pop("additionalProperties")
    schema["if"] = {"required": ["taskType"], "properties": {"taskType": {"enum": list(BUILT_IN)}}}
    schema["then"] = {"propertyNames": {"enum": list(properties)}}
    properties["data"] = {
        "description": properties["data"].get("description", ""),
        "anyOf": [
            *({"$ref": f"#/$defs/{model.__name__}"} for model in DATA_FORMS.values()),
            _REFERENCE,
            {"type": "null"},
        ],
    }


def _finish_training(schema: Schema) -> None:
    """The arguments of TRL and transformers."""
    types = {"int": "integer", "float": "number", "bool": "boolean", "str": "string", "list": "array", "dict": "object"}
    for name, kinds in all_arguments().items():
        if name in Training.model_fields:
            continue
        owners = (
            ", ".join(f"TRL's {method} config" for method in methods_with(name)) or "transformers' TrainingArguments"
        )
        value: Schema = {"description": f"Argument of {owners}."}
        if "any" not in kinds:
            value["type"] = sorted({types[kind] for kind in kinds} | {"string", "null"})
        for spelling in dict.fromkeys((name, camel_case(name))):
            schema["properties"][spelling] = value


def _finish_stages(definitions: dict[str, Schema]) -> None:
    """Stages inside of documents, names, and lists that may be written as one value."""
    entries = {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/StageEntry"}}
    body, entry, graph = definitions["SpecBody"], definitions["StageEntry"], definitions["Graph"]
    body["properties"]["stages"] = {"description": "Stages that run one after the other.", **entries}
    graph["properties"]["nodes"] = {"description": "Stages; without `dependsOn` they depend on none.", **entries}
    entry["properties"]["spec"] = {
        "description": "The stage's own values, over the document's.",
        "$ref": "#/$defs/StageSpec",
    }
    entry["properties"]["name"] = {"type": "string", "pattern": STAGE_NAME, "description": "What other stages call it."}
    entry["required"] = ["name"]
    body["not"] = {"required": ["stages", "graph"]}
    definitions["Metadata"]["properties"]["name"] = {
        "type": "string",
        "pattern": LABEL,
        "maxLength": 63,
        "description": "Lower-case letters, digits, `-` and `.`; at most 63 characters.",
    }
