"""Spellings of keys: snake_case, camelCase, and the nearest known word to a mistyped one."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from itertools import islice

_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")

LONGEST_NAME = 80
"""Words longer than this are not compared: the comparison is quadratic, and none of ours is."""

MOST_COMPARED = 500
"""Known words that a mistyped one is compared with."""


@lru_cache(maxsize=4096)
def snake_case(name: str) -> str:
    """`maxShards` and `max-shards` -> `max_shards`; what is already snake_case stays as it is."""
    if len(name) > LONGEST_NAME:
        return name
    return _HUMP.sub("_", name).replace("-", "_").lower()


@lru_cache(maxsize=4096)
def camel_case(name: str) -> str:
    """`max_shards` -> `maxShards`."""
    head, *rest = name.split("_")
    return head + "".join(word[:1].upper() + word[1:] for word in rest)


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that `word` was most likely meant to be, or None when none is close."""
    if len(word) > LONGEST_NAME:
        return None
    # Imported for those who mistype only.
    from difflib import get_close_matches

    folded = {snake_case(name).replace("_", ""): name for name in islice(known, MOST_COMPARED)}
    found = get_close_matches(snake_case(word).replace("_", ""), folded, n=1, cutoff=0.7)
    return folded[found[0]] if found else None


def did_you_mean(word: str, known: Iterable[str], *, like: str = "") -> str:
    """A suggestion for an unknown word, "" when nothing is near; in camelCase where `like` is."""
    found = nearest(word, known)
    if found is None:
        return ""
    if any(letter.isupper() for letter in like) and "_" in found:
        found = camel_case(found)
    return f"did you mean `{found}`?"


def shown(value: object, *, limit: int = 60) -> str:
    """A value as an error message quotes it: on one line, cut to `limit` characters."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    text = repr(value[: limit + 1]) if isinstance(value, str) else str(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"
