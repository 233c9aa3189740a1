"""Amounts as people write them: `32Gi`, `2h`, `1.41e-5`, `8`, `500m`.

Each parser takes what YAML or JSON may hold and returns a number, or raises `QuantityError` with what to write instead.
"""

from __future__ import annotations

import math
import re

from mloc_tasks.spec.names import shown

_BINARY = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50}
_DECIMAL = {"k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15}
_SECONDS = {"ms": 0.001, "s": 1.0, "sec": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}

_AMOUNT = re.compile(r"\s*(\d{1,20}(?:\.\d{1,20})?)\s*([A-Za-z]{0,8})\s*", re.ASCII)
_DURATION = re.compile(r"\s*(?:\d{1,15}(?:\.\d{1,9})?\s*[a-z]{1,3}\s*)+", re.ASCII)
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]+)")

LONGEST_TEXT = 64
"""No amount is written in more characters."""


class QuantityError(ValueError):
    """A value that is not an amount of the kind asked for; `suggestion` says what to write, "" when nothing is near."""

    def __init__(self, message: str, suggestion: str = "") -> None:
        super().__init__(message)
        self.suggestion = suggestion


def parse_bytes(value: object) -> int:
    """Bytes of `32Gi`, `32GiB` (binary), `32G` (decimal) or a plain count of bytes."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise QuantityError(f"{shown(value)} is not a quantity", "write it like 32Gi")
    if isinstance(value, int | float):
        return _whole(value, "a number of bytes")
    match = _AMOUNT.fullmatch(value[: LONGEST_TEXT + 1])
    if match is None:
        raise QuantityError(f"{shown(value)} is not a quantity", "write it like 32Gi")
    amount, unit = match.groups()
    scale = _scale(unit)
    if scale is None:
        raise QuantityError(f"{shown(value)} is not a quantity", _meant(amount, unit))
    return round(float(amount) * scale)


def _scale(unit: str) -> int | None:
    if unit in ("", "B"):
        return 1
    if unit in _DECIMAL:
        return _DECIMAL[unit]
    return _BINARY.get(unit.removesuffix("B"))


def _meant(amount: str, unit: str) -> str:
    """`32Gb`, `32gb`, `32gib` were meant as `32Gi`."""
    letter = unit[:1].upper()
    return f"try '{amount}{letter}i'" if f"{letter}i" in _BINARY else "write it like 32Gi"


def parse_seconds(value: object) -> float:
    """Seconds of `90`, `"90"`, `90s`, `30m`, `2h`, `1h30m`, `1d`."""
    advice = "write seconds, or text like 90s, 30m, 2h"
    if isinstance(value, str) and _DURATION.fullmatch(value[: LONGEST_TEXT + 1].lower()):
        parts = _DURATION_PART.findall(value.lower())
        if all(unit in _SECONDS for _, unit in parts):
            return math.fsum(float(amount) * _SECONDS[unit] for amount, unit in parts)
    try:
        return parse_number(value)
    except QuantityError:
        raise QuantityError(f"{shown(value)} is not a duration", advice) from None


def parse_number(value: object) -> float:
    """A finite number, also written as text (YAML 1.1 readers take `1.41e-5` for text)."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise QuantityError(f"{shown(value)} is not a number")
    if isinstance(value, str) and not value.isascii():
        raise QuantityError(f"{shown(value)} is not a number")
    try:
        number = float(value[: LONGEST_TEXT + 1]) if isinstance(value, str) else float(value)
    except (ValueError, OverflowError):
        raise QuantityError(f"{shown(value)} is not a number") from None
    if not math.isfinite(number):
        raise QuantityError(f"{shown(value)} is not a finite number")
    return number


def parse_whole(value: object) -> int:
    """A whole number, also written as text (`"8"`) or as a float without a fraction (`8.0`, `1e3`)."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and re.fullmatch(r"\s*[-+]?[0-9]{1,18}\s*", value):
        return int(value)
    try:
        number = parse_number(value)
    except QuantityError:
        raise QuantityError(f"{shown(value)} is not a whole number") from None
    return _whole(number, "a whole number")


def parse_cpus(value: object) -> float:
    """Processor cores of `8`, `"8"`, `0.5` or `500m` (thousandths)."""
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}m", value.strip()):
        return int(value.strip()[:-1]) / 1000
    try:
        return parse_number(value)
    except QuantityError:
        raise QuantityError(f"{shown(value)} is not a number of cores", "write it like 8, 0.5 or 500m") from None


def _whole(value: int | float, what: str) -> int:
    if not math.isfinite(value) or value != int(value):
        raise QuantityError(f"{shown(value)} is not {what}")
    return int(value)
