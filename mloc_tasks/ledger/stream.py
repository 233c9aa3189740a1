"""A run's stream: what attempts report into it, and who reads it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from mloc_tasks.ledger.connection import broker_errors
from mloc_tasks.ledger.core import LedgerCore, event_fields
from mloc_tasks.ledger.events import BLOCK_MS, FIRST, follow_events, read_events
from mloc_tasks.ledger.records import Event


class EventStream(LedgerCore):
    """Writes and reads the events of runs."""

    def progress(self, run_id: str, stage: str, shard: str, *, attempt: int, done: int, total: int | None) -> None:
        """Record how many rows (or steps) an attempt has done; the stage's sum follows."""
        args = [stage, shard, attempt, done, "" if total is None else total, time.time(), self._events_kept]
        self._script("progress", run_id, stage, args)

    def emit(
        self,
        run_id: str,
        kind: str,
        *,
        stage: str = "",
        shard: str = "",
        attempt: int = 0,
        data: dict[str, Any] | None = None,
    ) -> None:
        """Append an event of the executor's own (log, metrics) to the run's stream."""
        fields = event_fields(time.time(), kind=kind, stage=stage, shard=shard, attempt=attempt, data=data or {})
        with broker_errors(self._shown_url):
            self.client.xadd(self.keys.events(run_id), fields, maxlen=self._events_kept, approximate=True)

    def events(self, run_id: str, *, after: str = FIRST) -> list[Event]:
        """The next page of events that are there already."""
        with broker_errors(self._shown_url):
            return read_events(self.client, self.keys.events(run_id), after=after)

    def last_event(self, run_id: str) -> str:
        """The id of the newest event, to follow from."""
        with broker_errors(self._shown_url):
            newest = self.client.xrevrange(self.keys.events(run_id), count=1)
        return str(newest[0][0]) if newest else FIRST

    def follow(self, run_id: str, *, after: str = FIRST, block_ms: int = BLOCK_MS) -> Iterator[Event | None]:
        """Events as they come, until the run ends; None whenever `block_ms` passed without any."""
        with broker_errors(self._shown_url):
            yield from follow_events(self.client, self.keys.events(run_id), after=after, block_ms=block_ms)
