"""What a host writes to its output, as lines; and a mark in it that says which task's lines are all there."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator

LINE_BYTES = 500  # what is longer is cut
_MARK = "\0end of task "


def lines(read: Callable[[], bytes]) -> Iterator[str]:
    """The lines of what `read` gives piece by piece, until it gives nothing. Blank ones are left out.

    Of a line that was drawn over (a progress bar's, by carriage returns) it is the last state.
    """
    rest = b""
    while piece := read():
        *whole, rest = (rest + piece).split(b"\n")
        for line in whole:
            if text := _shown(line).decode("utf-8", "replace"):
                yield text
        if len(rest) > LINE_BYTES:
            rest = _shown(rest)
    if text := _shown(rest).decode("utf-8", "replace"):
        yield text


def _shown(line: bytes) -> bytes:
    return line.rstrip().rpartition(b"\r")[2][:LINE_BYTES]


def mark_end(task: int) -> None:
    """Called in the host: all that comes before this in the output was written before the task's end."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.write(2, f"\n{_MARK}{task}\n".encode())


def marked_end(line: str) -> int | None:
    """The task whose end a line marks."""
    number = line.removeprefix(_MARK)
    return int(number) if number != line and number.isdigit() else None
