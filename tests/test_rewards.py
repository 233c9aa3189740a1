"""Reward functions that come with MLOC."""

from __future__ import annotations

import sys

import pytest

from mloc_tasks import rewards
from mloc_tasks.errors import ExecutionError
from mloc_tasks.executors.scoring.function import function_scorer


@pytest.fixture(autouse=True)
def _no_analyzer_kept() -> None:
    rewards._analyzer.cache_clear()


def test_vader_prefers_what_sounds_friendly() -> None:
    pytest.importorskip("vaderSentiment")
    good, plain, bad = rewards.vader(
        ["How was it?"] * 3, ["It was a wonderful, happy day!", "It was.", "It was awful."]
    )
    assert 1 >= good > plain == 0 > bad >= -1
    assert rewards.vader([], []) == []


def test_vader_is_installed_under_its_name() -> None:
    pytest.importorskip("vaderSentiment")
    assert function_scorer("vader")(["How was it?"], ["A wonderful day!"])[0] > 0.5


def test_vader_that_is_not_installed_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vaderSentiment.vaderSentiment", None)
    with pytest.raises(ExecutionError) as caught:
        rewards.vader(["a"], ["b"])
    assert "pip install vaderSentiment" in caught.value.hint
