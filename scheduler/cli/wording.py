"""Times, durations, sizes and places as people read them."""

from __future__ import annotations

import os
import time
from datetime import datetime
from urllib.parse import unquote, urlsplit


def clock(seconds: float | None) -> str:
    """A time (seconds since the epoch) on the local clock; with its date unless that is today's."""
    if seconds is None:
        return "-"
    moment = datetime.fromtimestamp(seconds).astimezone()
    today = datetime.now().astimezone()
    if moment.date() == today.date():
        return moment.strftime("%H:%M:%S")
    return moment.strftime("%b %d %H:%M" if moment.year == today.year else "%Y-%m-%d %H:%M")


def duration(seconds: float | None) -> str:
    """A compact duration: 40ms, 3.2s, 12m05s, 3h20m, 2d04h."""
    if seconds is None:
        return "-"
    if seconds < 1:
        return f"{max(seconds, 0) * 1000:.0f}ms"
    if seconds < 59.95:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86_400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86_400}d{whole % 86_400 // 3600:02d}h"


def elapsed(started: float | None, ended: float | None) -> float | None:
    """Seconds from start to end, or to now where it has not ended; None where it has not started."""
    return None if started is None else (time.time() if ended is None else ended) - started


def counted(number: int, noun: str) -> str:
    """`1 stage`, `3 stages`, `1,000 stages`."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def place(url: str) -> str:
    """Where something lies: a local file as a path, relative where it is below the working directory."""
    parts = urlsplit(url)
    if parts.scheme not in ("", "file"):
        return url
    path = unquote(parts.path)
    relative = os.path.relpath(path)
    return path if relative.startswith("..") else relative


def cut(text: str, *, characters: int, lines: int) -> str:
    """The beginning of a text, and how much of it is not shown."""
    text = text.strip()
    kept = "\n".join(text.splitlines()[:lines])[:characters].rstrip()
    left = len(text) - len(kept)
    return f"{kept} ... ({left:,} more characters)" if left > 0 else kept
