"""Clears a machine's disk of what killed processes left there."""

from __future__ import annotations

import tempfile
import threading
from typing import Any

from celery import bootsteps

from mloc_tasks.scratch import remove_left
from mloc_tasks.settings import get_settings

SOON_SEC = 1.0
INTERVAL_SEC = 60.0

_wanted = threading.Event()


def sweep_soon() -> None:
    """A process of this machine was lost: what it left can go."""
    _wanted.set()


class Sweeper(bootsteps.StartStopStep):  # type: ignore[misc]  # celery ships no types
    """Sweeps when the worker starts, when it lost a pool child, and every minute, because other workers die too.

    What a killed process was just starting may hold its folders a moment longer. So it looks again a second after
    it was woken, and ever less often up to the minute.

    The folders of a store on a shared disk are not its concern: any worker that ends the run removes those.
    """

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **options: Any) -> None:
        super().__init__(consumer, **options)
        self._stopping = False
        self._thread: threading.Thread | None = None

    def start(self, consumer: Any) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._sweep, name="mloc-sweeper", daemon=True)
            self._thread.start()

    def shutdown(self, consumer: Any) -> None:
        self._stopping = True
        _wanted.set()

    def _sweep(self) -> None:
        roots = {tempfile.gettempdir(), str(get_settings().scratch_dir or tempfile.gettempdir())}
        wait_sec = SOON_SEC
        while not self._stopping:
            _wanted.clear()
            for root in roots:
                remove_left(root)
            wait_sec = SOON_SEC if _wanted.wait(wait_sec) else min(2 * wait_sec, INTERVAL_SEC)
