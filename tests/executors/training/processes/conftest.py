"""Trainings of several processes run in hosts, as they do in a worker."""

from __future__ import annotations

from tests.host.conftest import hosts, of_this_test, pool

__all__ = ["hosts", "of_this_test", "pool"]
