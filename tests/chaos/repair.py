"""What an operator runs beside the workers: `mloc reconcile`."""

from __future__ import annotations

from mloc_tasks.settings import get_settings
from scheduler.reconcile import Reconciler
from tests.chaos.stack import Stack


def repair(stack: Stack) -> str:
    """Reconcile once; says what was done, if anything was."""
    found = Reconciler(ledger=stack.ledger, settings=get_settings()).look()
    return "; ".join(f"{finding.decision.action}: {finding.decision.reason}" for finding in found)
