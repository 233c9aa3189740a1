"""Texts made comparable."""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Callable, Collection
from functools import cache
from typing import Any


def as_text(value: Any) -> str:
    """A value as the text that is compared: text as it is, numbers, lists and the like as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def normaliser(ignored: Collection[str]) -> Callable[[str], str]:
    """What takes out of a text the differences that do not count.

    Args:
        ignored: of `case` (by Unicode case folding), `punctuation` (Unicode's categories P*: removed) and `whitespace`
            (each run becomes one space, none at the ends; done last, so that a removed dash leaves no gap).
    """

    def normal(text: str) -> str:
        if "case" in ignored:
            text = text.casefold()
        if "punctuation" in ignored:
            text = text.translate(_punctuation())
        if "whitespace" in ignored:
            text = " ".join(text.split())
        return text

    return normal if ignored else str


@cache
def _punctuation() -> dict[int, None]:
    return dict.fromkeys(code for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code))[0] == "P")
