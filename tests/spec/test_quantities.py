"""Amounts as people write them."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mloc_tasks.spec.quantities import (
    QuantityError,
    parse_bytes,
    parse_cpus,
    parse_number,
    parse_seconds,
    parse_whole,
)

GIB = 2**30


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("32Gi", 32 * GIB), ("32GiB", 32 * GIB), ("32G", 32 * 10**9), ("1.5Gi", 3 * GIB // 2),
        ("512Mi", 2**29), ("64Ki", 65536), ("1Ti", 2**40), ("10k", 10_000), (" 8 Gi ", 8 * GIB), ("1024", 1024),
        ("0", 0), ("7B", 7), (4096, 4096), (1e9, 10**9),
    ],
)  # fmt: skip
def test_bytes(text: object, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize(
    ("text", "suggestion"),
    [
        ("32Gb", "try '32Gi'"),
        ("32gb", "try '32Gi'"),
        ("32gib", "try '32Gi'"),
        ("1.5mi", "try '1.5Mi'"),
        ("32Q", "32Gi"),
    ],
)
def test_nearly_bytes(text: str, suggestion: str) -> None:
    with pytest.raises(QuantityError, match="is not a quantity") as caught:
        parse_bytes(text)
    assert suggestion in caught.value.suggestion


@pytest.mark.parametrize(
    "value", ["", "Gi", "-3Gi", "1e3", "\u0661Gi", "x" * 10_000, "9" * 10_000, None, True, [], 1.5, float("inf")]
)
def test_not_bytes(value: object) -> None:
    with pytest.raises(QuantityError):
        parse_bytes(value)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("2h", 7200), ("30m", 1800), ("90s", 90), ("1h30m", 5400), ("1d", 86400), ("500ms", 0.5),
        ("1.5h", 5400), ("90", 90), (90, 90), (0.5, 0.5), ("1H", 3600),
    ],
)  # fmt: skip
def test_seconds(value: object, seconds: float) -> None:
    assert parse_seconds(value) == seconds


@pytest.mark.parametrize("value", ["", "h", "2 fortnights", "2hh3", "nan", "inf", True, None, "1y", "x" * 10**6])
def test_not_seconds(value: object) -> None:
    with pytest.raises(QuantityError, match="is not a duration"):
        parse_seconds(value)


@pytest.mark.parametrize(
    ("value", "number"), [("1.41e-5", 1.41e-5), ("1e3", 1000.0), (" 2 ", 2.0), (3, 3.0), ("-.5", -0.5)]
)
def test_number(value: object, number: float) -> None:
    assert parse_number(value) == number


@pytest.mark.parametrize("value", ["nan", "inf", "1e999", float("nan"), 10**400, True, "", "1,5", {}])
def test_not_a_number(value: object) -> None:
    with pytest.raises(QuantityError):
        parse_number(value)


@pytest.mark.parametrize(("value", "number"), [("8", 8), (8.0, 8), ("1e3", 1000), ("-1", -1), (2**60, 2**60)])
def test_whole(value: object, number: int) -> None:
    assert parse_whole(value) == number


@pytest.mark.parametrize("value", [1.5, "1.5", True, "eight", None])
def test_not_whole(value: object) -> None:
    with pytest.raises(QuantityError):
        parse_whole(value)


@pytest.mark.parametrize(("value", "cores"), [("8", 8.0), ("500m", 0.5), (0.5, 0.5), (2, 2.0)])
def test_cpus(value: object, cores: float) -> None:
    assert parse_cpus(value) == cores


@given(st.one_of(st.text(), st.integers(), st.floats(), st.none(), st.booleans(), st.lists(st.integers())))
def test_any_value_is_a_number_or_an_error(value: object) -> None:
    for parse in (parse_bytes, parse_seconds, parse_number, parse_whole, parse_cpus):
        with suppress(QuantityError):
            assert isinstance(parse(value), int | float)
