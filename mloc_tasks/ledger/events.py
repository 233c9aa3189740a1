"""The stream of everything that happens in a run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from mloc_tasks.ledger.records import Event
from mloc_tasks.ledger.states import State

BLOCK_MS = 1_000  # how long one read waits; bounds the answer to Ctrl-C and to a timeout
PAGE = 500
FIRST = "0"


def parse_event(entry_id: str, fields: dict[str, str]) -> Event:
    """An entry of the stream as an `Event`."""
    return Event(
        id=entry_id,
        time=float(fields["t"]),
        kind=fields["kind"],
        stage=fields.get("stage", ""),
        shard=fields.get("shard", ""),
        attempt=int(fields.get("attempt") or 0),
        state=fields.get("state", ""),
        data=json.loads(fields.get("data") or "{}"),
    )


def read_events(client: Any, key: str, *, after: str = FIRST, block_ms: int | None = None) -> list[Event]:
    """One page of events after the id `after`; with `block_ms`, waits that long for the first."""
    pages = client.xread({key: after}, count=PAGE, block=block_ms)
    entries = pages[0][1] if isinstance(pages, list) and pages else next(iter(pages.values()), [[]])[0] if pages else []
    return [parse_event(entry_id, fields) for entry_id, fields in entries]


def follow_events(client: Any, key: str, *, after: str = FIRST, block_ms: int = BLOCK_MS) -> Iterator[Event | None]:
    """Events as they come, until the run's last one. Yields None whenever `block_ms` passed without any."""
    over = False
    while True:
        page = read_events(client, key, after=after, block_ms=block_ms)
        if not page:
            yield None
        for event in page:
            after = event.id
            yield event
            if event.kind == "run" and event.state:
                over = State(event.state).is_final
        # The end of a run that was resumed later is not its last event.
        if over and not read_events(client, key, after=after):
            return
