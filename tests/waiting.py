"""Waiting for what nobody tells of."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

MOST_SEC = 120.0  # what takes a second takes many on a busy machine
LOOK_EVERY_SEC = 0.01

Found = TypeVar("Found")


def wait_until(look: Callable[[], Found | None], *, why: Callable[[], object] = lambda: None) -> Found:
    """Look until there is something, and give it. Fails after `MOST_SEC`, with what `why` gives then."""
    deadline = time.monotonic() + MOST_SEC
    while not (found := look()):
        assert time.monotonic() < deadline, why()
        time.sleep(LOOK_EVERY_SEC)
    return found
