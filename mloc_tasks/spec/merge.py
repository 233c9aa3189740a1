"""Defaults of the document under the values of a stage."""

from __future__ import annotations

from typing import Any

from mloc_tasks.spec.origins import Origin, Origins, Step

_REPLACED_BY_TYPE = {"data", "destination"}
"""Mappings whose `type` decides which keys they have: one of another type replaces the default as a whole."""
_ONE_PLACE = {"load"}
"""Mappings that name one place by `url` or by `path`: a stage's own replaces the default's."""


def merged(
    default: dict[str, Any], own: dict[str, Any], outer: Origin, inner: Origin, origins: Origins
) -> dict[str, Any]:
    """`own` over `default`, mapping by mapping; lists and scalars replace. `outer` and `inner` are their origins."""
    result: dict[str, Any] = {}
    places: dict[Step, Origin] = {}
    for key in [*default, *(key for key in own if key not in default)]:
        if key not in own:
            result[key], places[key] = default[key], origins.inside(default, key, outer)
            continue
        here = origins.inside(own, key, inner)
        below, above = default.get(key), own[key]
        if isinstance(below, dict) and isinstance(above, dict) and not _replaces(key, below, above):
            above = merged(below, above, origins.inside(default, key, outer), here, origins)
        result[key], places[key] = above, here
    origins.record(result, places)
    return result


def _replaces(key: str, below: dict[str, Any], above: dict[str, Any]) -> bool:
    if key in _REPLACED_BY_TYPE:
        return above.get("type") is not None and above.get("type") != below.get("type")
    return key in _ONE_PLACE and not {"url", "path"}.isdisjoint(above)


def rows_in_one_place(spec: dict[str, Any], top: Origin, origins: Origins) -> dict[str, Any]:
    """The spec with `inference.prompts` moved to `data: {type: list, items}`. Both at once is a problem."""
    inference = spec.get("inference")
    if not isinstance(inference, dict) or "prompts" not in inference:
        return spec
    outer = origins.inside(spec, "inference", top)
    here = origins.inside(inference, "prompts", outer)
    rest = {key: value for key, value in inference.items() if key != "prompts"}
    origins.record(rest, {key: origins.inside(inference, key, outer) for key in rest})
    found = {**spec, "inference": rest}
    places: dict[Step, Origin] = {key: origins.inside(spec, key, top) for key in spec}
    if inference["prompts"] is not None:
        if spec.get("data") is not None:
            origins.report(here, "`inference.prompts` and `data` both give the stage's inputs", "keep one")
        else:
            found["data"] = {"type": "list", "items": inference["prompts"]}
            origins.record(found["data"], {"type": here, "items": here})
            places["data"] = here
    origins.record(found, places)
    return found


def size_of(value: Any) -> int:
    """Roughly the bytes that a value takes as JSON."""
    if isinstance(value, str):
        return len(value) + 3
    if isinstance(value, dict):
        return 2 + sum(len(key) + 4 + size_of(entry) for key, entry in value.items())
    if isinstance(value, list):
        return 2 + sum(map(size_of, value))
    return 8
