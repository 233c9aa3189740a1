"""Which run is meant: a full id, the beginning of one, or `last`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mloc_tasks.errors import RunNotFoundError

if TYPE_CHECKING:
    from mloc_tasks.ledger import Ledger
    from scheduler.runs import Run

LAST = "last"
ID_LENGTH = 36
MOST_SHOWN = 5


def find_run(text: str) -> Run:
    """The run that the user means. Raises RunNotFoundError where there is none, or more than one."""
    from mloc_tasks.ledger import Ledger
    from scheduler.runs import Run

    ledger = Ledger.connect()
    ledger.ping()
    return Run(_full_id(text, ledger), ledger=ledger)


def _full_id(text: str, ledger: Ledger) -> str:
    if text == LAST:
        newest = next(ledger.runs(), None)
        if newest is None:
            raise RunNotFoundError("there are no runs yet", hint="submit one: mloc submit SPEC")
        return newest.id
    if len(text) >= ID_LENGTH:
        return text
    pattern = "".join(f"\\{letter}" if letter in "*?[]^\\" else letter for letter in text) + "*"
    found = sorted(str(run_id) for run_id, _ in ledger.client.zscan_iter(ledger.keys.index, match=pattern, count=1000))
    if not found:
        raise RunNotFoundError(f"no run begins with {text!r}", hint="`mloc list` shows the runs that are kept")
    if len(found) > 1:
        shown = ", ".join(found[:MOST_SHOWN]) + (", ..." if len(found) > MOST_SHOWN else "")
        raise RunNotFoundError(f"{len(found)} runs begin with {text!r}: {shown}", hint="write more of the id")
    return found[0]


def short(run_id: str) -> str:
    """Enough of an id to tell runs apart in a hint."""
    return run_id[:8]
