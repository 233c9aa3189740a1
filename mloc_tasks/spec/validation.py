"""A stage's canonical document to its typed spec, with pydantic's findings in the words of the language."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from mloc_tasks.spec.expressions import has_expression
from mloc_tasks.spec.model.base import SpecModel
from mloc_tasks.spec.model.data import DATA_FORMS
from mloc_tasks.spec.model.stage import StageSpec
from mloc_tasks.spec.names import nearest, shown
from mloc_tasks.spec.origins import Origin, Origins, Step

_WANTED = {
    "string_type": "must be text",
    "dict_type": "must be a mapping",
    "model_type": "must be a mapping",
    "model_attributes_type": "must be a mapping",
    "tuple_type": "must be a list",
    "list_type": "must be a list",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "string_too_short": "must not be empty",
    "too_short": "must not be empty",
}
_BOUNDS = {
    "greater_than": ("gt", "must be greater than"),
    "greater_than_equal": ("ge", "must be at least"),
    "less_than": ("lt", "must be less than"),
    "less_than_equal": ("le", "must be at most"),
}


def validate_stage(document: dict[str, Any], top: Origin, origins: Origins) -> StageSpec | None:
    """The typed spec of a stage. None when it has problems, which are then in `origins`.

    A value that is still a reference is left out where it is no text: its type is known once it is resolved.
    """
    candidate = document
    for _ in range(4):
        try:
            return StageSpec.model_validate(candidate)
        except ValidationError as error:
            found = _without_other_branches(error.errors(include_url=False))
        unresolved = [_location(each) for each in found if _is_unresolved(each, document)]
        if len(unresolved) < len(found):
            for each in found:
                if not _is_unresolved(each, document):
                    report_error(each, document, top, origins)
            return None
        for location in unresolved:
            candidate = _without(candidate, location)
    return None


def _without_other_branches(errors: list[ErrorDetails]) -> list[ErrorDetails]:
    """The errors without those that follow from others.

    That is `must be text` for lists that are a fitting alternative, but for one of their entries, and `must not be
    empty` for lists that are empty because an entry was refused.
    """
    lists = {error["loc"][:-2] for error in errors if isinstance(error["loc"][-1], int)}
    above = {error["loc"][:end] for error in errors for end in range(len(error["loc"]))}
    return [
        error
        for error in errors
        if not (error["type"] == "string_type" and isinstance(error["input"], list) and error["loc"][:-1] in lists)
        and not (error["type"] == "too_short" and error["loc"] in above)
    ]


def validate_model(model: type[SpecModel], document: Any, top: Origin, origins: Origins) -> Any:
    """`document` as a `model`, or None with problems in `origins`."""
    try:
        return model.model_validate(document)
    except ValidationError as error:
        for each in error.errors(include_url=False):
            report_error(each, document, top, origins)
    return None


def _location(error: ErrorDetails) -> tuple[Step, ...]:
    """Where an error is, without the tag by which the form of `data` was chosen."""
    location = tuple(error["loc"])
    return (
        ("data", *location[2:])
        if location[:1] == ("data",) and location[1:2] and location[1] in DATA_FORMS
        else location
    )


def _is_unresolved(error: ErrorDetails, document: dict[str, Any]) -> bool:
    if error["type"] == "missing":
        value: Any = document
        for step in _location(error):
            value = value.get(step) if isinstance(value, dict) else None
        return has_expression(value)
    return has_expression(error["input"])


def _without(document: dict[str, Any], location: tuple[Step, ...]) -> dict[str, Any]:
    """A copy without the value at `location`; when it is not there any more, without the mapping that misses it."""
    if not location or location[0] not in document:
        return document
    head, rest = str(location[0]), location[1:]
    inner = document[head]
    if isinstance(inner, dict) and rest and (rest[0] in inner or len(rest) > 1):
        return {**document, head: _without(inner, rest)}
    return {key: value for key, value in document.items() if key != head}


def report_error(error: ErrorDetails, document: Any, top: Origin, origins: Origins) -> None:
    """Put one of pydantic's findings into `origins`."""
    context = error.get("ctx", {})
    origin, value = origins.of(document, (*_location(error), *context.get("at", ())), top)
    if error["type"] == "missing":
        name = error["loc"][-1]
        origins.report(Origin((*origin.path, name), origin.mark), f"`{name}` is missing")
        return
    if origins.refused(origin):
        return
    message, suggestion = _words(error, context, value, origin)
    origins.report(origin, message, suggestion)


def _words(error: ErrorDetails, context: dict[str, Any], value: Any, origin: Origin) -> tuple[str, str]:
    kind = error["type"]
    if kind == "spec":
        return str(context["message"]), str(context["suggestion"])
    if kind in _BOUNDS:
        key, words = _BOUNDS[kind]
        return f"{shown(value)} {words} {context[key]}", ""
    if kind == "literal_error":
        options = [part.strip().strip("'") for part in str(context["expected"]).replace(" or ", ", ").split(",")]
        near = nearest(value, options) if isinstance(value, str) else None
        return f"{shown(value)} is not one of {', '.join(options)}", f"did you mean `{near}`?" if near else ""
    if kind in _WANTED:
        if kind == "string_type" and isinstance(value, int | float):
            return f"{origin.text or shown(value)} must be text", f'quote it: "{origin.text or shown(value)}"'
        if kind.endswith("_short"):
            return _WANTED[kind], ""
        return f"{_WANTED[kind]}, not {shown(value)}", ""
    if kind == "extra_forbidden":
        return f"unknown key `{error['loc'][-1]}`", ""
    return error["msg"][:1].lower() + error["msg"][1:], ""
