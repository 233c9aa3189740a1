"""What the parts of the ledger share: the connection, the names of the keys, the scripts."""

from __future__ import annotations

import json
from typing import Any

from mloc_tasks.ledger.connection import Client, Scripts, broker_errors
from mloc_tasks.ledger.keys import Keys
from mloc_tasks.settings import DAY_SEC, Settings


class LedgerCore:
    """A connection to the record of runs."""

    def __init__(self, client: Client, settings: Settings) -> None:
        self.client = client
        self.keys = Keys(settings.prefix)
        self._shown_url = settings.shown_redis_url
        self._retention_sec = int(settings.retention_days * DAY_SEC)
        self._events_kept = settings.events_per_run
        self._scripts = Scripts(client)

    def ping(self) -> None:
        """Raise `BrokerError` unless Redis answers."""
        with broker_errors(self._shown_url):
            self.client.ping()

    def _script(self, name: str, run_id: str, stage: str, args: list[Any]) -> Any:
        return self._run_script(name, run_id, stage, [], args)

    def _script_on(self, name: str, run_id: str, further_keys: list[str], args: list[Any]) -> Any:
        """Run a script of the whole run, on further keys of it."""
        return self._run_script(name, run_id, "", further_keys, args)

    def _run_script(self, name: str, run_id: str, stage: str, further_keys: list[str], args: list[Any]) -> Any:
        keys = [
            self.keys.run(run_id),
            self.keys.states(run_id),
            self.keys.stage(run_id, stage),
            self.keys.shards(run_id, stage),
            self.keys.events(run_id),
            *further_keys,
        ]
        with broker_errors(self._shown_url):
            return self._scripts.run(name, keys, args)


def event_fields(
    now: float,
    *,
    kind: str,
    stage: str = "",
    shard: str = "",
    attempt: int = 0,
    state: str = "",
    data: dict[str, Any] | None = None,
) -> dict[Any, Any]:
    """An entry of a run's stream, as `events.parse_event` reads it."""
    return {
        "t": now,
        "kind": kind,
        "stage": stage,
        "shard": shard,
        "attempt": attempt or "",
        "state": state,
        "data": json.dumps(data or {}, ensure_ascii=False),
    }
