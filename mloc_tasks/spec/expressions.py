"""References in a stage's values: `${stage.result.PATH}`, short `${stage.PATH}`, and `${env.NAME}`.

A value that is nothing but one reference keeps the type of what it refers to; inside a longer text the value is written
out (mappings, lists, numbers and null as JSON). `$${` stands for the characters `${` themselves.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from mloc_tasks.errors import UnresolvedReferenceError

_EXPRESSION = re.compile(r"\$\$\{|\$\{([^{}\n]{0,512})\}|\$\{")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*")
_STEP = re.compile(r"\.([A-Za-z0-9_][A-Za-z0-9_-]*)|\[(-?\d{1,9})\]")

Location = tuple[str | int, ...]


class ExpressionError(ValueError):
    """Text between `${` and `}` that is not a reference."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A value out of an upstream stage's result. `path` () is the whole result; `text` is the reference as written."""

    stage: str
    path: tuple[str | int, ...]
    text: str


@dataclass(frozen=True, slots=True)
class EnvReference:
    """An environment variable of the machine that loads the spec."""

    name: str
    text: str


def parse_expression(inside: str, text: str) -> Reference | EnvReference:
    """The reference that `inside` (what stands between the braces of `text`) says.

    Raises `ExpressionError`, whose message quotes `text`.
    """
    inside = inside.strip()
    name = _NAME.match(inside)
    steps: list[str | int] = []
    position = name.end() if name else 0
    while name and position < len(inside):
        step = _STEP.match(inside, position)
        if step is None:
            break
        steps.append(step[1] if step[1] is not None else int(step[2]))
        position = step.end()
    if name is None or position < len(inside) or not steps:
        raise ExpressionError(f"`{text}` is not a reference")
    if name[0] == "env":
        if len(steps) != 1 or not isinstance(steps[0], str):
            raise ExpressionError(f"`{text}` does not name an environment variable")
        return EnvReference(steps[0], text)
    return Reference(name[0], tuple(steps[1:] if steps[0] == "result" else steps), text)


def parse_whole_reference(value: object) -> Reference | None:
    """The stage reference that `value` is from its first character to its last, else None."""
    if not isinstance(value, str) or not value.startswith("${"):
        return None
    match = _EXPRESSION.fullmatch(value)
    if match is None or match[1] is None:
        return None
    try:
        found = parse_expression(match[1], value)
    except ExpressionError:
        return None
    return found if isinstance(found, Reference) else None


def has_expression(value: object) -> bool:
    """Whether a text holds a `${`."""
    return isinstance(value, str) and "${" in value


def strings(value: Any, location: Location = ()) -> Iterator[tuple[Location, str]]:
    """Every text inside a JSON-like value that may hold a reference, with where it stands."""
    if isinstance(value, str):
        if "${" in value:
            yield location, value
    elif isinstance(value, dict):
        for key, entry in value.items():
            yield from strings(entry, (*location, key))
    elif isinstance(value, list | tuple):
        for index, entry in enumerate(value):
            if isinstance(entry, str | dict | list | tuple):
                yield from strings(entry, (*location, index))


def references_in(text: str) -> Iterator[Reference | EnvReference]:
    """The references of one text, in order. Raises `ExpressionError` for a `${` that starts none."""
    for match in _EXPRESSION.finditer(text):
        if match[0] == "$${":
            continue
        if match[1] is None:
            raise ExpressionError(f"a `${{` in {text[match.start() : match.start() + 30]!r} is not closed")
        yield parse_expression(match[1], match[0])


def find_references(value: Any) -> Iterator[tuple[Location, Reference | EnvReference]]:
    """Every reference inside a JSON-like value, with where it stands. Raises `ExpressionError` for a malformed one."""
    for location, text in strings(value):
        for reference in references_in(text):
            yield location, reference


def get_path(document: Any, path: tuple[str | int, ...]) -> Any:
    """The value at `path` inside a result. Raises `UnresolvedReferenceError`, which says what is there instead."""
    value = document
    for index, step in enumerate(path):
        if isinstance(step, str) and isinstance(value, dict) and step in value:
            value = value[step]
        elif isinstance(value, list) and (number := _index(step)) is not None and -len(value) <= number < len(value):
            value = value[number]
        else:
            raise UnresolvedReferenceError(f"{_written(path[:index])} has no {_written((step,))}; it {_holds(value)}")
    return value


def _index(step: str | int) -> int | None:
    if isinstance(step, int):
        return step
    return int(step) if step.isdecimal() and len(step) < 10 else None


def _written(path: tuple[str | int, ...]) -> str:
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return f"`{text.lstrip('.')}`" if text else "the result"


def _holds(value: Any) -> str:
    if isinstance(value, dict):
        return f"has {', '.join(map(str, list(value)[:20]))}" if value else "is an empty mapping"
    if isinstance(value, list):
        return f"is a list of {len(value)}"
    return f"is {type(value).__name__ if value is not None else 'null'}"


def substitute(value: Any, lookup: Callable[[Reference | EnvReference], Any]) -> Any:
    """A copy of a JSON-like value with every reference replaced by what `lookup` returns for it, and `$${` by `${`.

    Raises `ExpressionError` for a malformed reference, and whatever `lookup` raises.
    """
    if isinstance(value, str):
        return _substitute_text(value, lookup) if "${" in value else value
    if isinstance(value, dict):
        return {key: substitute(entry, lookup) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [substitute(entry, lookup) for entry in value]
    return value


def _substitute_text(text: str, lookup: Callable[[Reference | EnvReference], Any]) -> Any:
    whole = _EXPRESSION.fullmatch(text)
    if whole is not None and whole[1] is not None:
        return lookup(parse_expression(whole[1], text))

    def written(match: re.Match[str]) -> str:
        if match[0] == "$${":
            return "${"
        if match[1] is None:
            raise ExpressionError(f"a `${{` in {text[match.start() : match.start() + 30]!r} is not closed")
        found = lookup(parse_expression(match[1], match[0]))
        return found if isinstance(found, str) else json.dumps(found, ensure_ascii=False)

    return _EXPRESSION.sub(written, text)
