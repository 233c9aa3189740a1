"""An attempt's progress, log lines and metrics on their way into the run's stream."""

from __future__ import annotations

import time

from mloc_tasks.ledger import Ledger

PROGRESS_INTERVAL_SEC = 0.5
LOG_LINE_CHARS = 4_000


class RunReporter:
    """A `Reporter` of one attempt. Progress is sent at most every `PROGRESS_INTERVAL_SEC`, and when it is complete."""

    def __init__(self, ledger: Ledger, run_id: str, stage: str, shard: str, attempt: int) -> None:
        self._ledger = ledger
        self._place = (run_id, stage, shard)
        self._attempt = attempt
        self._next_progress = 0.0
        self.done: int | None = None
        self.before = 0  # rows that earlier attempts have done

    def progress(self, done: int, total: int | None = None) -> None:
        done, total = done + self.before, None if total is None else total + self.before
        self.done = done
        now = time.monotonic()
        # The last report is left to the commit, which carries the count anyway.
        if now < self._next_progress or done == total:
            return
        self._next_progress = now + PROGRESS_INTERVAL_SEC
        run_id, stage, shard = self._place
        self._ledger.progress(run_id, stage, shard, attempt=self._attempt, done=done, total=total)

    def log(self, message: str, *, level: str = "info") -> None:
        run_id, stage, shard = self._place
        data = {"level": level, "message": message[:LOG_LINE_CHARS]}
        self._ledger.emit(run_id, "log", stage=stage, shard=shard, attempt=self._attempt, data=data)

    def metrics(self, step: int, values: dict[str, float]) -> None:
        run_id, stage, shard = self._place
        self._ledger.emit(
            run_id, "metrics", stage=stage, shard=shard, attempt=self._attempt, data={"step": step, **values}
        )
