"""References: reading them, finding them, putting values in."""

from __future__ import annotations

from typing import Any

import pytest

from mloc_tasks.errors import UnresolvedReferenceError
from mloc_tasks.spec.expressions import (
    EnvReference,
    ExpressionError,
    Reference,
    find_references,
    get_path,
    parse_whole_reference,
    substitute,
)

RESULT = {"ok": True, "items": [{"output": "Paris"}, {"output": "Rome"}], "n": 2, "none": None, "map": {"a-b": [1]}}


def _lookup(reference: Reference | EnvReference) -> Any:
    assert isinstance(reference, Reference)
    return get_path(RESULT, reference.path)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("${s.result.items[0].output}", ("items", 0, "output")),
        ("${s.items[-1].output}", ("items", -1, "output")),
        ("${ s.result }", ()),
        ("${s.result.result}", ("result",)),
        ("${s.map.a-b[0]}", ("map", "a-b", 0)),
        ("${s.items.0.output}", ("items", "0", "output")),
    ],
)
def test_reference_is_read(text: str, path: tuple[str | int, ...]) -> None:
    assert parse_whole_reference(text) == Reference("s", path, text)


@pytest.mark.parametrize(
    "text", ["${}", "${a}", "${.a}", "${a..b}", "${a.b[}", "${a.b[x]}", "${a b.c}", "${env.A.B}", "${a.b", "x ${"]
)
def test_malformed_reference_is_an_error(text: str) -> None:
    with pytest.raises(ExpressionError):
        list(find_references(text))
    with pytest.raises(ExpressionError):
        substitute(text, _lookup)


def test_references_are_found_with_their_places() -> None:
    value = {"a": ["x", "${s.n}-${env.HOME}"], "b": {"c": "$${s.n}"}}
    assert list(find_references(value)) == [
        (("a", 1), Reference("s", ("n",), "${s.n}")),
        (("a", 1), EnvReference("HOME", "${env.HOME}")),
    ]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("${s.n}", 2),
        ("${s.items}", RESULT["items"]),
        ("${s.none}", None),
        ("n=${s.n}", "n=2"),
        ("${s.n}${s.n}", "22"),
        ("${s.items[1].output}!", "Rome!"),
        ("${s.ok} ${s.none} ${s.map}", 'true null {"a-b": [1]}'),
        ("$${s.n} costs $5 {x}", "${s.n} costs $5 {x}"),
    ],
)
def test_value_is_put_in(text: str, value: Any) -> None:
    assert substitute({"a": [text]}, _lookup) == {"a": [value]}


def test_values_put_in_are_not_read_again() -> None:
    assert substitute("x${s.a}", lambda _: "${s.b}") == "x${s.b}"


@pytest.mark.parametrize(
    ("path", "words"),
    [
        (("itms",), "the result has no `itms`; it has ok, items"),
        (("items", 2), "`items` has no `[2]`; it is a list of 2"),
        (("items", -3), "is a list of 2"),
        (("n", "x"), "`n` has no `x`; it is int"),
        (("none", "x"), "it is null"),
    ],
)
def test_missing_value_says_what_is_there(path: tuple[str | int, ...], words: str) -> None:
    with pytest.raises(UnresolvedReferenceError, match="has no") as caught:
        get_path(RESULT, path)
    assert words in str(caught.value)
