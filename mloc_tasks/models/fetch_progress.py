"""How far a download is, told by looking at what has arrived, whoever fetches it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mloc_tasks.artifacts.disk import shown_bytes
from mloc_tasks.errors import MlocError

INTERVAL_SECONDS = 15.0
_BLOCK_BYTES = 512  # the unit of st_blocks


@contextmanager
def fetch_progress(
    directory: Path,
    name: str,
    *,
    total: int | None,
    log: Callable[..., None],
    interval: float = INTERVAL_SECONDS,
) -> Iterator[None]:
    """Within the block, every `interval` seconds a log line says how much of `name` is below `directory`."""
    ended = threading.Event()
    started = time.monotonic()

    def watch() -> None:
        while not ended.wait(interval):
            arrived = bytes_below(directory)
            rate = arrived / (time.monotonic() - started)
            of = "" if not total else f" of {shown_bytes(total)} ({min(arrived / total, 1):.0%})"
            with suppress(MlocError):  # a log that cannot be reached must not end the download
                log(f"fetching {name}: {shown_bytes(arrived)}{of}, {shown_bytes(rate)}/s")

    watcher = threading.Thread(target=watch, name="mloc-fetch-progress", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()


def bytes_below(directory: Path) -> int:
    """Bytes on disk of the files in it. Files that are written in parts, in any order, have holes until then."""
    found = 0
    for folder, _, names in os.walk(directory):
        for name in names:
            with suppress(FileNotFoundError):  # renamed since
                found += os.lstat(os.path.join(folder, name)).st_blocks * _BLOCK_BYTES
    return found
