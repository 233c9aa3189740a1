"""An interrupt ends a command wherever it comes, and its cleaning up is not interrupted again."""

from __future__ import annotations

import signal

import pytest

from scheduler.cli.interrupts import one_interrupt


class Finalised:
    """Is interrupted while Python finalises it, as a connection may be."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGTERM)


def test_the_first_one_is_raised_and_later_ones_are_not() -> None:
    with one_interrupt():
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_one_that_comes_where_python_drops_it_is_raised_at_the_next_check() -> None:
    with one_interrupt() as interrupts:
        interrupts.check()
        Finalised()
        with pytest.raises(KeyboardInterrupt):
            interrupts.check()
        interrupts.no_more()
        interrupts.check()
