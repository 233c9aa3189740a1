"""Times, sizes and texts as people read them."""

from __future__ import annotations

import pytest

from mloc_tasks.artifacts.disk import shown_bytes
from mloc_tasks.ledger import StageRecord, State
from scheduler.cli.follow import stage_words
from scheduler.cli.terminal import clean
from scheduler.cli.wording import counted, cut, duration, place


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, "-"),
        (0.0412, "41ms"),
        (3.24, "3.2s"),
        (59.97, "1m00s"),
        (725, "12m05s"),
        (12_000, "3h20m"),
        (187_200, "2d04h"),
    ],
)
def test_durations_are_compact(seconds: float | None, words: str) -> None:
    assert duration(seconds) == words


def test_sizes_and_counts() -> None:
    assert [shown_bytes(9), shown_bytes(1536), shown_bytes(5 * 2**40)] == ["9 B", "1.5 KiB", "5.0 TiB"]
    assert [counted(1, "stage"), counted(1000, "shard")] == ["1 stage", "1,000 shards"]


def test_a_long_text_is_cut_and_says_how_much_is_left() -> None:
    assert cut("short\n", characters=10, lines=2) == "short"
    assert cut("x" * 1210, characters=10, lines=2) == "xxxxxxxxxx ... (1,200 more characters)"


def test_control_codes_out_of_data_do_not_reach_the_terminal() -> None:
    assert clean("a\x1b[31mb\x1b]0;title\x07c\x00\td\r\n") == "abc\td\n"


def test_only_local_places_below_the_working_directory_are_relative(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(str(tmp_path))
    assert place(f"file://{tmp_path}/results/a%20b") == "results/a b"
    assert place("s3://bucket/prefix") == "s3://bucket/prefix"
    assert place("file:///elsewhere/x") == "/elsewhere/x"


def test_a_training_has_made_steps() -> None:
    given = {"name": "train", "state": State.RUNNING, "queue": "cpu", "depends_on": (), "error": None, "result": None}
    counts = {"scattered": False, "shards": None, "shards_done": 0, "shards_failed": 0, "started": None, "ended": None}
    for task_type, words in (("sft", "5/8 steps"), ("inference", "5/8 items")):
        stage = StageRecord(**given, **counts, task_type=task_type, items_done=5, items_total=8)
        assert stage_words(stage) == [words]
