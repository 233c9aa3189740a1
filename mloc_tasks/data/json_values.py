"""Values out of tables as JSON can say them."""

from __future__ import annotations

import datetime
import decimal
import uuid
from typing import Any

_PLAIN = (str, int, float, bool, type(None))
_AS_TEXT = (decimal.Decimal, uuid.UUID, datetime.timedelta)


class NotJsonError(TypeError):
    """A value that JSON has no form for, such as the bytes of an image."""


def json_value(value: Any) -> Any:
    """`value` in JSON's types: times and dates as ISO text, decimals and UUIDs as text, tuples as lists.

    Raises NotJsonError.
    """
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, list | tuple):
        return [json_value(inner) for inner in value]
    if isinstance(value, dict):
        return {_key(key): json_value(inner) for key, inner in value.items()}
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, _AS_TEXT):
        return str(value)
    raise NotJsonError(type(value).__name__)


def _key(key: Any) -> str:
    if isinstance(key, str):
        return key
    raise NotJsonError(f"key of type {type(key).__name__}")
