"""What the model libraries print on their own, sent to one place instead of the process's stderr."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO


@contextmanager
def library_messages(log: Callable[[str], None]) -> Iterator[None]:
    """Within it, warnings of Transformers, the Hub client and Python go to `log`; progress bars are off.

    Process-wide while it lasts (that is how these libraries log), so enter it under the lock of the model. Progress
    bars stay off afterwards.
    """
    from transformers.utils import logging as library_logging

    handler = _Forward(log)
    library_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    library_logging.disable_default_handler()
    library_logging.add_handler(handler)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _forward_warnings(log)
            yield
    finally:
        library_logging.remove_handler(handler)
        library_logging.enable_default_handler()


class _Forward(logging.Handler):
    def __init__(self, log: Callable[[str], None]) -> None:
        super().__init__(level=logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        self._log(f"{record.name.partition('.')[0]}: {record.getMessage()}")


def _forward_warnings(log: Callable[[str], None]) -> Callable[..., None]:
    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        log(f"{category.__name__}: {message}")

    return show
