"""Ctrl-C, a `kill` and a closed terminal as one KeyboardInterrupt, after which cleaning up is not interrupted again."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """What was heard within `one_interrupt`."""

    def __init__(self) -> None:
        self._heard = False
        self._over = False

    def check(self) -> None:
        """Raise the interrupt that got lost: Python drops what is raised while it finalises an object."""
        if self._heard and not self._over:
            raise KeyboardInterrupt

    def no_more(self) -> None:
        """None is raised any more: what is left to do is cleaning up."""
        self._over = True

    def hear(self, number: int, frame: Any) -> None:
        """Handle a signal."""
        if not (self._heard or self._over):
            self._heard = True
            raise KeyboardInterrupt


@contextmanager
def one_interrupt() -> Iterator[Interrupts]:
    """Within it the first SIGINT, SIGTERM or SIGHUP raises KeyboardInterrupt and later ones do nothing.

    A signal that the parent process had us ignore (nohup) stays ignored.
    """
    interrupts = Interrupts()
    before = {each: signal.getsignal(each) for each in _SIGNALS}
    for each, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(each, interrupts.hear)
    try:
        yield interrupts
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
