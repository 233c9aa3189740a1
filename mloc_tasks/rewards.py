"""Reward functions that come with MLOC, for `reward_model: {type: function, identifier: vader}`.

A reward function takes the prompts and the completions of a batch, in the same order, and gives one number for each
completion; higher is better. Your own is named `package.module:function`, or by an entry point of group `mloc.rewards`,
where a package that the workers have brings it.
"""

from __future__ import annotations

import importlib
from functools import lru_cache
from typing import Any

from mloc_tasks.errors import ExecutionError


def vader(prompts: list[str], completions: list[str]) -> list[float]:
    """How positive each completion sounds, -1 to 1: the compound score of VADER (Hutto and Gilbert 2014).

    It counts words of a lexicon, takes microseconds and knows English only: for trying things out. Raises
    ExecutionError where vaderSentiment is not installed.
    """
    analyzer = _analyzer()
    return [float(analyzer.polarity_scores(completion)["compound"]) for completion in completions]


@lru_cache(maxsize=1)
def _analyzer() -> Any:
    try:
        module: Any = importlib.import_module("vaderSentiment.vaderSentiment")
    except ImportError as error:
        raise ExecutionError(
            "the reward function vader needs vaderSentiment",
            hint="pip install vaderSentiment on the workers; the extra mloc[ppo] brings it",
        ) from error
    return module.SentimentIntensityAnalyzer()
