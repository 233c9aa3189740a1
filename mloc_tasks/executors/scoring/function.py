"""Rewards by a Python function: `module:function`, or an entry point of group `mloc.rewards`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from mloc_tasks.errors import ExecutionError, MlocError
from mloc_tasks.executors.base import Item
from mloc_tasks.executors.named_functions import imported_function, installed_function
from mloc_tasks.executors.scoring.checked import Columns, Scorer, checked_scores, text_of

REWARD_GROUP = "mloc.rewards"
WHAT = "reward function"

RewardFunction = Callable[..., Any]
"""Of prompts and completions; gives one number for each completion."""


def function_scorer(identifier: str) -> Scorer:
    """Scores by the function called `identifier`. Raises ExecutionError when there is none, or two.

    Columns are passed on by name where the function has such a parameter, or `**` for all.
    """
    function = (
        imported_function(identifier, what=WHAT)
        if ":" in identifier
        else installed_function(identifier, group=REWARD_GROUP, what=WHAT)
    )
    source = f"the {WHAT} {identifier}"

    def score(prompts: Sequence[Item], completions: Sequence[str], *, columns: Columns | None = None) -> list[float]:
        further = _taken(function, columns or {})
        try:
            given = function([text_of(prompt) for prompt in prompts], list(completions), **further)
        except MlocError:
            raise
        except Exception as error:  # a user's code: whatever it raises is the stage's error
            raise ExecutionError(f"{source} raised {type(error).__name__}: {error}") from error
        return checked_scores(given, completions=completions, source=source)

    return score


def _taken(function: RewardFunction, columns: Columns) -> dict[str, list[Any]]:
    """Those of `columns` that the function takes beside prompts and completions, its first two parameters."""
    if not columns:
        return {}
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except ValueError:  # some builtins do not tell
        return {}
    by_name = {inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY}
    first = [each.name for each in parameters[:2]]
    names = {each.name for each in parameters[2:] if each.kind in by_name}
    if any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters):
        names = set(columns).difference(first)
    return {name: list(columns[name]) for name in columns if name in names}
