"""Python functions that a spec names: `module:function`, or an entry point of a group."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import reduce
from importlib.metadata import entry_points
from typing import Any

from mloc_tasks.errors import ExecutionError


def imported_function(target: str, *, what: str) -> Callable[..., Any]:
    """The function `module:function`.

    Args:
        what: what it is to the stage, for errors, such as `metric`.

    Raises ExecutionError when there is none.
    """
    module, _, attribute = target.partition(":")
    try:
        found = reduce(getattr, attribute.split("."), importlib.import_module(module))
    except (ImportError, AttributeError) as error:
        raise ExecutionError(
            f"the {what} {target} cannot be imported: {error}",
            hint="install its package on the workers, or put its folder on their PYTHONPATH",
        ) from error
    return _called(found, target, what)


def installed_function(name: str, *, group: str, what: str) -> Callable[..., Any]:
    """The function behind an entry point of `group`. Raises ExecutionError when there is none, or two."""
    # One distribution can be seen twice when two entries of sys.path lead to it.
    found = {each.value: each for each in entry_points(group=group, name=name)}
    if not found:
        raise ExecutionError(
            f"no package on this worker brings the {what} {name!r}",
            hint=f"write `module:function`, or install a package with an entry point of group {group!r}",
        )
    if len(found) > 1:
        raise ExecutionError(f"the {what} {name!r} is claimed by {' and '.join(found)}", hint="uninstall one of them")
    (entry,) = found.values()
    try:
        return _called(entry.load(), f"{name} ({entry.value})", what)
    except (ImportError, AttributeError) as error:
        raise ExecutionError(f"the {what} {name} ({entry.value}) cannot be imported: {error}") from error


def _called(found: Any, target: str, what: str) -> Callable[..., Any]:
    if not callable(found):
        raise ExecutionError(f"the {what} {target} is {type(found).__name__}, not a function")
    function: Callable[..., Any] = found
    return function
