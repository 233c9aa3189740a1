"""What a worker has taken, looked at by one thread while others take and end requests."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator

import pytest
from celery.worker import state

from mloc_tasks.worker.taken import active

LOOKS = 1_000


class Taken:
    """A request, as far as Celery's set is concerned."""


@pytest.fixture
def quick_turns() -> Iterator[None]:
    """Threads take turns after a few steps each, so that they meet in the middle of whatever can be interrupted."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("quick_turns")
def test_requests_that_come_and_go_meanwhile_disturb_nobody_who_looks() -> None:
    stays = [Taken() for _ in range(500)]
    enough = threading.Event()

    def come_and_go() -> None:
        while not enough.is_set():
            request = Taken()
            state.active_requests.add(request)
            state.active_requests.discard(request)

    thread = threading.Thread(target=come_and_go)
    for request in stays:
        state.active_requests.add(request)
    thread.start()
    try:
        assert all(len(active()) >= len(stays) for _ in range(LOOKS))
    finally:
        enough.set()
        thread.join()
        for request in stays:
            state.active_requests.discard(request)
