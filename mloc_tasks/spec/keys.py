"""Keys to their canonical form: `maxTokens` and `max_new_tokens` become `max_tokens`, unknown keys become problems."""

from __future__ import annotations

import types
from functools import lru_cache
from typing import Annotated, Any, Union, get_args, get_origin

from mloc_tasks.spec.model.base import SpecModel
from mloc_tasks.spec.model.data import DATA_FORMS, form_of, normal_data
from mloc_tasks.spec.model.training import Training
from mloc_tasks.spec.names import did_you_mean, snake_case
from mloc_tasks.spec.origins import Origin, Origins, Step


@lru_cache(maxsize=256)
def _nested(model: type[SpecModel], name: str) -> tuple[type[SpecModel] | None, bool]:
    """The model of a field's value, or of the entries of its list (then True); (None, False) for plain values."""
    return _model_in(model.model_fields[name].annotation)


def _model_in(annotation: Any) -> tuple[type[SpecModel] | None, bool]:
    if isinstance(annotation, type) and issubclass(annotation, SpecModel):
        return annotation, False
    origin = get_origin(annotation)
    if origin is Annotated or origin in (Union, types.UnionType):
        for part in get_args(annotation)[: 1 if origin is Annotated else None]:
            found = _model_in(part)
            if found[0] is not None:
                return found
    if origin in (tuple, list):
        return _model_in(get_args(annotation)[0])[0], True
    return None, False


@lru_cache(maxsize=64)
def _names_of(model: type[SpecModel]) -> frozenset[str]:
    return frozenset(model.model_fields)


class Canonical:
    """Rewrites documents. Problems go to `origins`."""

    def __init__(self, origins: Origins) -> None:
        self._origins = origins

    def mapping(
        self, value: Any, model: type[SpecModel], origin: Origin, *, unknown: dict[str, Origin] | None = None
    ) -> Any:
        """A copy of `value` with the keys of `model`. A value that is no mapping is returned as it is.

        With `unknown`, keys that the model does not know are kept and noted there instead of being problems.
        """
        if not isinstance(value, dict):
            return value
        found: dict[str, Any] = {}
        entries: dict[Step, Origin] = {}
        for key, entry in value.items():
            here = self._origins.inside(value, key, origin)
            name = self._name(key, model, here, unknown)
            if name is None:
                continue
            if name in found:
                also = entries[name].path[-1]
                self._origins.report(here, f"`{key}` and `{also}` are the same key", "keep one")
                continue
            entries[name] = here
            found[name] = self._entry(name, entry, model, here)
        self._origins.record(found, entries)
        return found

    def _name(self, key: str, model: type[SpecModel], here: Origin, unknown: dict[str, Origin] | None) -> str | None:
        names = _names_of(model)
        snake = key if key in names else snake_case(key)
        snake = snake if snake in names else model.other_names.get(snake, snake)
        if snake in names:
            return snake
        if snake in model.retired:
            self._origins.report(here, f"`{key}` is ignored: {model.retired[snake]}", "remove it", severity="warning")
            return None
        if model is Training:
            # Which arguments there are depends on the task type; they are checked when that is known.
            return snake
        if unknown is not None:
            unknown[key] = here
            return key
        known = names | model.other_names.keys()
        self._origins.report(
            here, f"unknown key `{key}`", lambda: did_you_mean(key, known, like=key) or _list_of(names)
        )
        return None

    def _entry(self, name: str, entry: Any, model: type[SpecModel], here: Origin) -> Any:
        if name == "data":
            return self.data(entry, here)
        if name not in model.model_fields:
            return entry
        nested, in_list = _nested(model, name)
        if nested is None:
            return entry
        if not in_list:
            return self.mapping(entry, nested, here)
        if not isinstance(entry, list):
            return entry
        places: dict[Step, Origin] = {index: self._origins.inside(entry, index, here) for index, _ in enumerate(entry)}
        found = [self.mapping(part, nested, places[index]) for index, part in enumerate(entry)]
        self._origins.record(found, places)
        return found

    def data(self, value: Any, origin: Origin, *, final: bool = False) -> Any:
        """`data` in its canonical form.

        A mapping without any sign of its form may get one from the defaults that it is merged with; it is a problem
        only when `final` says that it has been.
        """
        if not isinstance(value, dict):
            normal = normal_data(value)
            if isinstance(normal, dict):
                self._origins.record(normal, dict.fromkeys(normal, origin))
            return normal
        keys = {snake_case(key) for key in value}
        form = form_of(keys, {snake_case(key): entry for key, entry in value.items()})
        if form is None:
            if final or "type" in keys:
                self._report_formless(value, origin)
                return None
            self._origins.record(
                renamed := {snake_case(key): entry for key, entry in value.items()},
                {snake_case(key): self._origins.inside(value, key, origin) for key in value},
            )
            return renamed
        found = self.mapping(value, DATA_FORMS[form], origin)
        if "type" not in found:
            # Put where a reader looks first.
            typed = {"type": form, **found}
            places: dict[Step, Origin] = {key: self._origins.inside(found, key, origin) for key in found}
            self._origins.record(typed, {"type": origin, **places})
            return typed
        return found

    def _report_formless(self, value: dict[str, Any], origin: Origin) -> None:
        kind = value.get("type")
        if kind is None:
            message = "what kind of data this is cannot be told"
            self._origins.report(origin, message, f"add `type`, one of {', '.join(DATA_FORMS)}")
        else:
            near = did_you_mean(kind, DATA_FORMS) if isinstance(kind, str) else ""
            here = self._origins.inside(value, "type", origin)
            message = f"{kind!r} is not a kind of data" if isinstance(kind, str) else "`type` must be text"
            self._origins.report(here, message, near or f"it is one of {', '.join(DATA_FORMS)}")


def _list_of(names: frozenset[str]) -> str:
    return f"known are {', '.join(sorted(names))}" if len(names) <= 12 else ""
