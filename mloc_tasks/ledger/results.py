"""Where results lie that may be used again, by the fingerprint of the stage that gave them."""

from __future__ import annotations

from mloc_tasks.ledger.connection import broker_errors
from mloc_tasks.ledger.core import LedgerCore
from mloc_tasks.ledger.records import StageResult


class ResultIndex(LedgerCore):
    """Kept for as long as a run is after its last change; each use counts as one."""

    def note_fingerprint(self, run_id: str, stage: str, fingerprint: str) -> None:
        """Record a stage's fingerprint, for `remember_result` when it is done."""
        with broker_errors(self._shown_url):
            self.client.hset(self.keys.stage(run_id, stage), "fingerprint", fingerprint)

    def remember_result(self, run_id: str, stage: str, result: StageResult) -> None:
        """Let later stages of the same fingerprint find the result."""
        with broker_errors(self._shown_url):
            fingerprint = self.client.hget(self.keys.stage(run_id, stage), "fingerprint")
            if fingerprint:
                self.client.set(self.keys.cache(fingerprint), result.to_json(), ex=self._retention_sec)

    def result_of(self, fingerprint: str) -> StageResult | None:
        """The result that is known under a fingerprint."""
        with broker_errors(self._shown_url):
            return StageResult.from_json(self.client.getex(self.keys.cache(fingerprint), ex=self._retention_sec))
