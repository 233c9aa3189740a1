"""The ledger: what is true about runs. Messages are hints; this is the record that claims and commits go through."""

from __future__ import annotations

from mloc_tasks.ledger.attempts import Attempts
from mloc_tasks.ledger.connection import connect
from mloc_tasks.ledger.reopen import Reopening
from mloc_tasks.ledger.results import ResultIndex
from mloc_tasks.settings import Settings, get_settings


class Ledger(Attempts, Reopening, ResultIndex):
    """Reads and writes the record of runs.

    Every method raises `BrokerError` when Redis does not answer. Times are seconds since the epoch.
    """

    @classmethod
    def connect(cls, settings: Settings | None = None) -> Ledger:
        """A ledger on the Redis of the settings."""
        settings = settings or get_settings()
        return cls(connect(settings), settings)
