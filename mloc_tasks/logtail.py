"""The last lines that an attempt logged, for the error that it ends with."""

from __future__ import annotations

import logging
import threading
from collections import deque

LINES = 20
LINE_CHARS = 500


class LogTail(logging.Handler):
    """Keeps the last lines of each thread; an attempt is one thread's work from `clear` to `text`."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
        self._local = threading.local()

    def emit(self, record: logging.LogRecord) -> None:
        for line in self.format(record).splitlines():
            self._lines().append(line[:LINE_CHARS])

    def clear(self) -> None:
        """Forget this thread's lines."""
        self._lines().clear()

    def text(self) -> str:
        """This thread's lines since `clear`."""
        return "\n".join(self._lines())

    def _lines(self) -> deque[str]:
        lines: deque[str] | None = getattr(self._local, "lines", None)
        if lines is None:
            lines = self._local.lines = deque(maxlen=LINES)
        return lines


_tail = LogTail()


def attempt_log() -> LogTail:
    """This process's tail, listening to everything that is logged."""
    root = logging.getLogger()
    if _tail not in root.handlers:
        root.addHandler(_tail)
    return _tail
