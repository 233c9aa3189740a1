"""Trainings of several processes run in hosts, as they do in a worker."""

from __future__ import annotations

import pytest

from tests.host.conftest import hosts, of_this_test, pool

__all__ = ["hosts", "of_this_test", "pool"]


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each process imports torch first, which on a busy machine takes its time."""
    monkeypatch.setattr("tests.host.conftest.WAIT_SEC", 180.0)
