"""Doing the same to many files at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def each(function: Callable[[Item], Result], items: Sequence[Item], *, threads: int) -> list[Result]:
    """`[function(item) for item in items]` by up to `threads` threads.

    The first exception is raised once the calls under way have ended; those not yet begun never start.
    """
    if len(items) <= 1 or threads <= 1:
        return [function(item) for item in items]
    with ThreadPoolExecutor(min(threads, len(items)), thread_name_prefix="mloc-artifacts") as pool:
        futures = [pool.submit(function, item) for item in items]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
        # Calls begin in order, so whatever was cancelled comes after the one that failed.
        return [future.result() for future in futures]
