"""What an operator runs beside the workers: `mloc reconcile`."""

from __future__ import annotations

import importlib.util

from tests.chaos.stack import Stack


def repair(stack: Stack) -> str:
    """Run reconcile once; says what it did. Raises AssertionError where there is none."""
    if importlib.util.find_spec("scheduler.reconcile") is None:
        raise AssertionError("stuck, and there is no reconcile")
    from scheduler.reconcile import reconcile

    return str(reconcile(stack.ledger))
