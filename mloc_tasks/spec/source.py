"""YAML text to plain values, with the line and column of every one of them, within fixed limits.

The document is read from libyaml's events, one by one, so that nothing is built before it is counted. Scalars follow
YAML 1.2's core schema rather than 1.1: `yes` and `2026-01-01` are text, `1.41e-5` is a number.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import yaml

from mloc_tasks.spec.names import shown
from mloc_tasks.spec.problems import Problem, SpecError, dotted

LARGEST_DOCUMENT = 2**20
"""Bytes of text."""
MOST_NODES = 100_000
"""Values in a document, those behind aliases counted each time."""
MOST_TEXT = 4 * 2**20
"""Characters in all values, those behind aliases counted each time."""
DEEPEST = 64
"""Mappings and lists inside each other."""

_Loader: type[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_NULL = {"", "~", "null", "Null", "NULL"}
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_TAGS = {f"tag:yaml.org,2002:{name}": name for name in ("str", "int", "float", "bool", "null", "seq", "map")}
LONGEST_NUMBER = 64
"""Characters of a number at most."""

_Key = str | int


class Mark(NamedTuple):
    """Where a value (in a mapping: its key) stands, counted from 1, and how a plain scalar was written."""

    line: int
    column: int
    text: str | None = None


@dataclass(slots=True)
class Source:
    """A document as plain values.

    `marks` holds, by the `id` of a mapping or list and by key or index, where the entry stands; it is empty for a
    document that was not text. The containers live as long as `document`, so their ids are unique.
    """

    document: Any
    marks: dict[int, dict[_Key, Mark]] = field(default_factory=dict)
    start: Mark | None = None


class _Refusal(Exception):
    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


def read_bytes(data: bytes) -> Source:
    """Parse UTF-8 YAML. Raises `SpecError`."""
    if len(data) > LARGEST_DOCUMENT:
        raise _too_large(len(data))
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start]
        column = error.start - (before.rfind(b"\n") + 1) + 1
        raise SpecError(
            [Problem("", "the document is not UTF-8 text", before.count(b"\n") + 1, column, "save it as UTF-8")]
        ) from None
    return read_text(text)


def _too_large(size: int) -> SpecError:
    advice = "put prompts and rows into a file: data: {type: file, url: ...}"
    return SpecError(
        [Problem("", f"the document has {size} bytes; the limit is {LARGEST_DOCUMENT}", None, None, advice)]
    )


def read_text(text: str) -> Source:
    """Parse YAML text. Raises `SpecError`."""
    if len(text) > LARGEST_DOCUMENT or len(text.encode("utf-8", "replace")) > LARGEST_DOCUMENT:
        raise _too_large(len(text))
    if "\0" in text:
        raise SpecError(
            [Problem("", "the document holds a NUL character", text[: text.index("\0")].count("\n") + 1, 1)]
        )
    try:
        return _Reader(text).read()
    except _Refusal as refusal:
        raise SpecError([refusal.problem]) from None
    except yaml.MarkedYAMLError as error:
        raise SpecError([_syntax_problem(error, text)]) from None
    except (yaml.YAMLError, UnicodeEncodeError) as error:
        position = getattr(error, "position", getattr(error, "start", 0))
        line = text[:position].count("\n") + 1
        message = "the document holds a character that YAML does not allow"
        raise SpecError(
            [Problem("", message, line, None, "remove it, or write it as \\x.. in double quotes")]
        ) from None


def _syntax_problem(error: yaml.MarkedYAMLError, text: str) -> Problem:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark else (None, None)
    message = f"this is not YAML: {error.problem or error.context}"
    if error.context and error.problem and error.context_mark:
        message += f" ({error.context} from line {error.context_mark.line + 1})"
    if line is not None:
        lines = text.splitlines()
        written = lines[line - 1] if line <= len(lines) else ""
        if "\t" in written[: len(written) - len(written.lstrip())] or written[(column or 1) - 1 :].startswith("\t"):
            return Problem("", "a tab stands where YAML wants spaces", line, column, "indent with spaces")
        if "${" in written or "{{" in written:
            return Problem("", message, line, column, 'put text with braces into quotes: "${stage.result.PATH}"')
    return Problem("", message, line, column)


class _Reader:
    """One pass over the events of one document."""

    def __init__(self, text: str) -> None:
        self.events = _Loader(text)
        self.marks: dict[int, dict[_Key, Mark]] = {}
        self.anchors: dict[str, tuple[Any, int, int]] = {}
        self.open_anchors: set[str] = set()
        self.nodes = 0
        self.characters = 0
        self.path: list[_Key] = []

    def read(self) -> Source:
        try:
            self._next(yaml.StreamStartEvent)
            if self.events.check_event(yaml.StreamEndEvent):
                raise self._refuse("the document is empty", None, 'it begins with "apiVersion: mloc/v1"')
            self._next(yaml.DocumentStartEvent)
            event = self.events.get_event()
            start = _mark(event)
            document = self._value(event, 0)
            self._next(yaml.DocumentEndEvent)
            if not self.events.check_event(yaml.StreamEndEvent):
                event = self.events.get_event()
                raise self._refuse("the file holds several documents", event, "put each into a file of its own")
            return Source(document, self.marks, start)
        finally:
            self.events.dispose()

    def _next(self, kind: type[Any]) -> Any:
        event = self.events.get_event()
        assert isinstance(event, kind), f"{event} instead of {kind}"
        return event

    def _refuse(self, message: str, event: Any, suggestion: str = "") -> _Refusal:
        mark = _mark(event) if event is not None else None
        line, column = (mark.line, mark.column) if mark else (None, None)
        return _Refusal(Problem(dotted(self.path[:8]), message, line, column, suggestion))

    def _count(self, nodes: int, characters: int, event: Any) -> None:
        self.nodes += nodes
        self.characters += characters
        if self.nodes > MOST_NODES or self.characters > MOST_TEXT:
            limit = f"{MOST_NODES} values" if self.nodes > MOST_NODES else f"{MOST_TEXT} characters"
            advice = "put prompts and rows into a file, and do not nest aliases"
            raise self._refuse(f"the document expands to more than {limit}", event, advice)

    def _value(self, event: Any, depth: int) -> Any:
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event)
        nodes, characters = self.nodes, self.characters
        if event.anchor is not None:
            self.open_anchors.add(event.anchor)
        if depth > DEEPEST:
            raise self._refuse(f"values are nested more than {DEEPEST} deep", event)
        value: Any
        if isinstance(event, yaml.ScalarEvent):
            self._count(1, len(event.value), event)
            value = self._scalar(event)
        elif isinstance(event, yaml.SequenceStartEvent):
            self._count(1, 0, event)
            value = self._list(event, depth)
        else:
            self._count(1, 0, event)
            value = self._mapping(event, depth)
        if event.anchor is not None:
            self.anchors[event.anchor] = (value, self.nodes - nodes, self.characters - characters)
            self.open_anchors.discard(event.anchor)
        return value

    def _alias(self, event: Any) -> Any:
        if event.anchor in self.open_anchors:
            raise self._refuse(f"`*{event.anchor}` stands inside of what it repeats", event)
        if event.anchor not in self.anchors:
            known = ", ".join(f"*{name}" for name in list(self.anchors)[:10])
            raise self._refuse(f"`*{event.anchor}` repeats nothing", event, f"known are {known}" if known else "")
        value, nodes, characters = self.anchors[event.anchor]
        self._count(nodes, characters, event)
        return value

    def _list(self, start: Any, depth: int) -> list[Any]:
        self._check_tag(start, "seq")
        found: list[Any] = []
        marks = self.marks[id(found)] = {}
        while not isinstance(event := self.events.get_event(), yaml.SequenceEndEvent):
            self.path.append(len(found))
            marks[len(found)] = _mark(event)
            found.append(self._value(event, depth + 1))
            self.path.pop()
        return found

    def _mapping(self, start: Any, depth: int) -> dict[str, Any]:
        self._check_tag(start, "map")
        found: dict[str, Any] = {}
        marks = self.marks[id(found)] = {}
        merged: list[tuple[Any, Any]] = []
        while not isinstance(key_event := self.events.get_event(), yaml.MappingEndEvent):
            key = self._key(key_event)
            event = self.events.get_event()
            self.path.append(key)
            if key == "<<" and isinstance(key_event, yaml.ScalarEvent) and key_event.implicit[0]:
                merged.append((self._value(event, depth + 1), event))
            elif key in found:
                first = marks[key].line
                raise self._refuse(
                    f"`{key}` stands twice in this mapping, first on line {first}", key_event, "keep one"
                )
            else:
                value = self._value(event, depth + 1)
                text = event.value if isinstance(event, yaml.ScalarEvent) and event.implicit[0] else None
                marks[key] = Mark(key_event.start_mark.line + 1, key_event.start_mark.column + 1, text)
                found[key] = value
            self.path.pop()
        for value, event in merged:
            self._merge(found, marks, value, event)
        return found

    def _merge(self, found: dict[str, Any], marks: dict[_Key, Mark], value: Any, event: Any) -> None:
        for source in value if isinstance(value, list) else [value]:
            if not isinstance(source, dict):
                raise self._refuse("`<<` takes a mapping or a list of mappings", event)
            for key, entry in source.items():
                if key not in found:
                    found[key] = entry
                    marks[key] = self.marks[id(source)][key]

    def _key(self, event: Any) -> str:
        if isinstance(event, yaml.ScalarEvent):
            self._count(1, len(event.value), event)
            if event.anchor is not None:
                self.anchors[event.anchor] = (event.value, 1, len(event.value))
            key = self._scalar(event)
            if isinstance(key, str):
                return key
            raise self._refuse(
                f"the key {shown(event.value)} is not text", event, f'put it into quotes: "{event.value}"'
            )
        if isinstance(event, yaml.AliasEvent) and isinstance(key := self._alias(event), str):
            return key
        raise self._refuse("a key must be text", event, 'a text that begins with { or [ needs quotes: "{...}"')

    def _check_tag(self, event: Any, kind: str) -> None:
        if event.tag not in (None, "!") and _TAGS.get(event.tag) != kind:
            raise self._refuse(f"the tag {shown(event.tag)} is not supported here", event, "remove it")

    def _scalar(self, event: Any) -> Any:
        text = event.value
        if event.tag is None or event.tag == "!":
            if not event.implicit[0]:
                return text
            return self._plain(text, event)
        kind = _TAGS.get(event.tag)
        if kind == "str":
            return text
        value = self._plain(text, event) if kind else None
        if kind is None or type(value).__name__ != {"null": "NoneType"}.get(kind, kind):
            if kind == "float" and isinstance(value, int):
                return float(value)
            raise self._refuse(f"the tag {shown(event.tag)} is not supported here", event, "remove it")
        return value

    def _plain(self, text: str, event: Any) -> Any:
        if text in _NULL:
            return None
        if text in _BOOL:
            return _BOOL[text]
        if text[0] not in "0123456789-+.":
            return text
        if _INT.fullmatch(text):
            if len(text) > LONGEST_NUMBER:
                raise self._refuse(f"a number of {len(text)} digits", event, "put it into quotes if it is text")
            return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
        if _NOT_FINITE.fullmatch(text):
            raise self._refuse(f"`{text}` is not a finite number", event, "put it into quotes if it is text")
        if _FLOAT.fullmatch(text):
            number = float(text)
            if not math.isfinite(number):
                raise self._refuse(f"`{shown(text)}` is not a finite number", event, "put it into quotes if it is text")
            return number
        return text


def _mark(event: Any) -> Mark:
    text = event.value if isinstance(event, yaml.ScalarEvent) and event.implicit[0] else None
    return Mark(event.start_mark.line + 1, event.start_mark.column + 1, text)


def read_mapping(value: Mapping[str, Any]) -> Source:
    """A copy of a document given as Python values, refused when it could not have been YAML. Raises `SpecError`."""
    counts = [0, 0]

    def copy(value: Any, path: tuple[_Key, ...]) -> Any:
        counts[0] += 1
        counts[1] += len(value) if isinstance(value, str) else 0
        if len(path) > DEEPEST or counts[0] > MOST_NODES or counts[1] > MOST_TEXT:
            raise _Refusal(Problem(dotted(path[:DEEPEST]), "the document is nested too deeply, or too large"))
        if value is None or isinstance(value, bool | str | int):
            return value
        if isinstance(value, float):
            if math.isfinite(value):
                return value
            raise _Refusal(Problem(dotted(path), f"`{value}` is not a finite number"))
        if isinstance(value, Mapping):
            for key in value:
                if not isinstance(key, str):
                    raise _Refusal(Problem(dotted(path), f"the key {shown(key)} is not text"))
            return {key: copy(entry, (*path, key)) for key, entry in value.items()}
        if isinstance(value, list | tuple):
            return [copy(entry, (*path, index)) for index, entry in enumerate(value)]
        message = f"a value of type {type(value).__name__} has no place in a spec"
        raise _Refusal(Problem(dotted(path), message, suggestion="use text, numbers, lists and mappings"))

    try:
        return Source(copy(value, ()))
    except _Refusal as refusal:
        raise SpecError([refusal.problem]) from None
