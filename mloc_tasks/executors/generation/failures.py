"""How many rows of a shard may fail before the shard does (`max_failed_items`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from mloc_tasks.errors import ExecutionError


class FailureLimit:
    """Counts failed items and raises ExecutionError when they are more than allowed.

    Args:
        limit: 0 allows any number (they are reported); an int is a number of rows; a float a share of `rows`.
        rows: rows of this shard.
        failed: how many of them failed in earlier attempts.
        setting: where the spec says the limit, for the error.
    """

    def __init__(
        self, limit: int | float, *, rows: int, failed: int = 0, setting: str = "inference.max_failed_items"
    ) -> None:
        self._limit = limit
        self._rows = rows
        self._setting = setting
        self._failed = failed
        self._first = ""
        self._allowed = None if limit == 0 else int(limit * rows) if isinstance(limit, float) else limit

    def check(self, items: Iterable[Mapping[str, Any]]) -> None:
        """Count the failed ones among `items`."""
        for item in items:
            if item.get("ok") is False:
                self._failed += 1
                self._first = self._first or f"row {item['index']}: {item['error']}"
        if self._allowed is not None and self._failed > self._allowed:
            allows = f"{self._setting} {self._limit} allows {self._allowed}"
            first = f". The first was {self._first}" if self._first else ""  # an earlier attempt had the others
            raise ExecutionError(f"{self._failed} of {self._rows} rows failed; {allows}{first}")
