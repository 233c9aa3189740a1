"""A completion ends at end-of-sequence, at a stop string or at its length, each row for itself."""

from __future__ import annotations

import pytest

from mloc_tasks.executors.transformers.stopping import Ending, StopWatcher, cut_at_stop

END = 0


def decode(ids: list[int]) -> str:
    """Each id is a letter: 1 is a, 2 is b, ..."""
    return "".join(chr(ord("a") + each - 1) for each in ids if each != END)


def endings(*rows: str, stop: tuple[str, ...] = (), max_tokens: int = 100, min_tokens: int = 0) -> list[Ending | None]:
    """Feed the rows (letters; `.` is end-of-sequence) token by token, as `generate` does."""
    watcher = StopWatcher(
        decode,
        prompt_width=3,
        max_tokens=[max_tokens] * len(rows),
        end_tokens=[END],
        stop=stop,
        min_tokens=min_tokens,
    )
    ids = [[END if each == "." else ord(each) - ord("a") + 1 for each in row] for row in rows]
    for generated in range(1, len(ids[0]) + 1):
        watcher.observe([row[:generated] for row in ids], generated=generated)
    return watcher.endings


def test_each_row_has_its_own_end() -> None:
    assert endings("ab.zzz", "abcdef") == [Ending(3, "stop"), None]


def test_tokens_after_the_end_change_nothing() -> None:
    assert endings("a.bb.b") == [Ending(2, "stop")]


def test_stop_string_over_several_tokens_ends_the_row() -> None:
    assert endings("abcde", stop=("zz", "cd")) == [Ending(4, "stop", by_stop_string=True)]


def test_length_is_the_reason_when_nothing_else_ended_it() -> None:
    assert endings("abcde", max_tokens=4) == [Ending(4, "length")]


def test_end_of_sequence_as_the_last_allowed_token_counts_as_stop() -> None:
    assert endings("abc.", max_tokens=4) == [Ending(4, "stop")]


def test_min_tokens_hold_back_stop_strings() -> None:
    assert endings("abcdxab", stop=("ab",), min_tokens=4)[0] == Ending(4, "stop", by_stop_string=True)


@pytest.mark.parametrize(
    ("text", "stop", "expected"),
    [("one two", ("two",), "one "), ("a b c", ("c", "b"), "a "), ("none", ("x",), None), ("x", ("x",), "")],
)
def test_output_is_cut_before_the_first_stop_string(text: str, stop: tuple[str, ...], expected: str | None) -> None:
    assert cut_at_stop(text, stop) == expected
