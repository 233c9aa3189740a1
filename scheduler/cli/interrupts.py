"""Ctrl-C, a `kill` and a closed terminal as one KeyboardInterrupt, after which cleaning up is not interrupted again."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def one_interrupt() -> Iterator[Callable[[], None]]:
    """Within it the first SIGINT, SIGTERM or SIGHUP raises KeyboardInterrupt and later ones do nothing.

    It gives a function after whose call none raises any more: for when what is left to do is cleaning up.
    A signal that the parent process had us ignore (nohup) stays ignored.
    """
    heard = False

    def interrupt(number: int, frame: Any) -> None:
        nonlocal heard
        if not heard:
            heard = True
            raise KeyboardInterrupt

    def no_more() -> None:
        nonlocal heard
        heard = True

    before = {each: signal.getsignal(each) for each in _SIGNALS}
    for each, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(each, interrupt)
    try:
        yield no_more
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
