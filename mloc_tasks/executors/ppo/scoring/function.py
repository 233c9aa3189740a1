"""Rewards by a Python function: `module:function`, or an entry point of group `mloc.rewards`."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Sequence
from functools import reduce
from importlib.metadata import entry_points
from typing import Any

from mloc_tasks.errors import ExecutionError, MlocError
from mloc_tasks.executors.base import Item
from mloc_tasks.executors.ppo.scoring.checked import Columns, Scorer, checked_scores, text_of

REWARD_GROUP = "mloc.rewards"

RewardFunction = Callable[..., Any]
"""Of prompts and completions; gives one number for each completion."""


def function_scorer(identifier: str) -> Scorer:
    """Scores by the function called `identifier`. Raises ExecutionError when there is none, or two.

    Columns are passed on by name where the function has such a parameter, or `**` for all.
    """
    function = _imported(identifier) if ":" in identifier else _installed(identifier)
    source = f"the reward function {identifier}"

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


def _imported(target: str) -> RewardFunction:
    module, _, attribute = target.partition(":")
    try:
        found = reduce(getattr, attribute.split("."), importlib.import_module(module))
    except (ImportError, AttributeError) as error:
        raise ExecutionError(
            f"the reward function {target} cannot be imported: {error}",
            hint="install its package on the workers, or put its folder on their PYTHONPATH",
        ) from error
    return _called(found, target)


def _installed(name: str) -> RewardFunction:
    # One distribution can be seen twice when two entries of sys.path lead to it.
    found = {each.value: each for each in entry_points(group=REWARD_GROUP, name=name)}
    if not found:
        raise ExecutionError(
            f"no package on this worker brings the reward function {name!r}",
            hint=f"write `module:function`, or install a package with an entry point of group {REWARD_GROUP!r}",
        )
    if len(found) > 1:
        raise ExecutionError(
            f"the reward function {name!r} is claimed by {' and '.join(found)}", hint="uninstall one of them"
        )
    (entry,) = found.values()
    try:
        return _called(entry.load(), f"{name} ({entry.value})")
    except (ImportError, AttributeError) as error:
        raise ExecutionError(f"the reward function {name} ({entry.value}) cannot be imported: {error}") from error


def _called(found: Any, target: str) -> RewardFunction:
    if not callable(found):
        raise ExecutionError(f"the reward function {target} is {type(found).__name__}, not a function")
    function: RewardFunction = found
    return function
