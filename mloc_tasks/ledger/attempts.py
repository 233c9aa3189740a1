"""Attempts at shards: claimed, given up, ended. What a worker does to the ledger."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from functools import cached_property, lru_cache

from mloc_tasks.errors import IllegalTransitionError, RunNotFoundError, StaleAttemptError
from mloc_tasks.ledger.connection import broker_errors
from mloc_tasks.ledger.records import (
    Claim,
    ClaimStatus,
    Division,
    Failure,
    ShardRecord,
    ShardSlice,
    StageJob,
    StageResult,
)
from mloc_tasks.ledger.runs import RunRecords
from mloc_tasks.ledger.states import State
from mloc_tasks.ledger.stream import EventStream

WRITE_BATCH = 1_000
JOBS_KEPT = 64


class Attempts(RunRecords, EventStream):
    """Claims and commits; each is one atomic step in Redis."""

    @cached_property
    def stage_job(self) -> Callable[[str, str], StageJob]:
        """What never changes about a stage, by run and name; kept in memory. Raises `RunNotFoundError`."""
        return lru_cache(maxsize=JOBS_KEPT)(self._stage_job)

    def _stage_job(self, run_id: str, stage: str) -> StageJob:
        with broker_errors(self._shown_url):
            header = self.client.hget(self.keys.run(run_id), "header")
            body = self.client.hgetall(self.keys.stage(run_id, stage))
        if not header or not body:
            raise RunNotFoundError(f"no stage {stage!r} of run {run_id!r} in the ledger")
        return StageJob(
            run_id=run_id,
            stage=stage,
            header=json.loads(header),
            document=json.loads(body["document"]),
            depends_on=tuple(json.loads(body["depends_on"])),
            scattered=body["scattered"] == "1",
            queue=body["queue"],
            priority=int(body["priority"]),
        )

    def claim(
        self,
        run_id: str,
        stage: str,
        shard: str,
        *,
        worker: str,
        holder: str,
        task_id: str,
        whole: bool,
        takeover: int = 0,
    ) -> Claim:
        """Take a shard for one attempt, atomically.

        `whole` says that the shard's end is the stage's end. `holder` names the process and thread; `takeover` is the
        number of an attempt known to be dead, whose shard is taken though its worker still gives signs of life.
        """
        args = [stage, shard, worker, holder, task_id, time.time(), takeover, self.keys.lease(""), self._events_kept,
                int(whole), self._retention_sec]  # fmt: skip
        status, text = self._script("claim", run_id, stage, args)
        record = ShardRecord.from_json(shard, text) if text else None
        known = ClaimStatus.__members__.values()
        return Claim(status=ClaimStatus(status) if status in known else ClaimStatus.SETTLED, shard=record)

    def commit(
        self,
        run_id: str,
        stage: str,
        shard: str,
        *,
        attempt: int,
        state: State,
        whole: bool,
        error: Failure | None = None,
        result: StageResult | None = None,
        items: int | None = None,
    ) -> None:
        """End an attempt for good. Raises `StaleAttemptError` when a newer attempt has the shard,
        `IllegalTransitionError` when the shard is over already."""
        self._commit(run_id, stage, shard, attempt, str(state), whole, error, result, items)

    def lease_left(self, worker: str) -> float:
        """Seconds that a worker's lease lasts unless it is renewed; 0 where it has none."""
        with broker_errors(self._shown_url):
            return max(0.0, float(self.client.pttl(self.keys.lease(worker))) / 1000)

    def release(self, run_id: str, stage: str, shard: str, *, attempt: int, error: Failure) -> None:
        """End an attempt without settling the shard: another one may claim it. Raises as `commit` does."""
        self._commit(run_id, stage, shard, attempt, "released", False, error, None, None)

    def _commit(
        self,
        run_id: str,
        stage: str,
        shard: str,
        attempt: int,
        state: str,
        whole: bool,
        error: Failure | None,
        result: StageResult | None,
        items: int | None,
    ) -> None:
        args = [
            stage,
            shard,
            attempt,
            state,
            time.time(),
            error.to_json() if error else "",
            result.to_json() if result else "",
            "" if items is None else items,
            self._events_kept,
            int(whole),
        ]
        answer = self._script("commit", run_id, stage, args)
        where = f"{run_id}/{stage}[{shard}] attempt {attempt}"
        if answer in ("stale", "missing"):
            raise StaleAttemptError(f"{where}: a newer attempt has taken over; nothing of this one is recorded")
        if answer != "ok":
            raise IllegalTransitionError(f"{where}: the shard is {answer} already; it cannot become {state}")

    def abandon(self, run_id: str, stage: str, shard: str, *, task_id: str, worker: str) -> bool:
        """Give up the claim that a process of `worker` died with; says whether there was one. The attempt counts."""
        args = [stage, shard, task_id, worker, time.time(), self._events_kept]
        return bool(self._script("abandon", run_id, stage, args) == "ok")

    def holds(self, run_id: str, stage: str, shard: str, *, attempt: int) -> bool:
        """Whether an attempt is still the one that may write for its shard."""
        record = self.shard(run_id, stage, shard)
        return record is not None and record.attempt == attempt and bool(record.holder)

    def open_shards(self, run_id: str, stage: str, *, attempt: int, slices: Iterable[ShardSlice], rows: int) -> int:
        """Record the shards that a scattered stage is split into; returns how many. Raises `StaleAttemptError`."""
        key = self.keys.shards(run_id, stage)
        count = 0
        with broker_errors(self._shown_url):
            floor, generation = self.client.hmget(self.keys.stage(run_id, stage), "floor", "generation")
        resumed = f',"attempt":{floor},"base":{floor},"generation":{generation}' if floor else ""
        with broker_errors(self._shown_url), self.client.pipeline(transaction=False) as pipe:
            for rows_of_shard in slices:
                offset = -1 if rows_of_shard.offset is None else rows_of_shard.offset
                # Never over a record that is there: another copy of this message may have come first.
                text = f'{{"state":"queued","slice":[{rows_of_shard.start},{rows_of_shard.stop},{offset}]{resumed}}}'
                pipe.hsetnx(key, str(count), text)
                count += 1
                if count % WRITE_BATCH == 0:
                    pipe.execute()
            pipe.execute()
        answer = self._script("scatter", run_id, stage, [stage, attempt, time.time(), count, rows, self._events_kept])
        if answer != "ok":
            raise StaleAttemptError(f"{run_id}/{stage}: a newer attempt has split this stage")
        return count

    def division(self, run_id: str, stage: str) -> Division:
        """Into how many shards the stage is split, and how many rows they have; 0 while that is not decided."""
        with broker_errors(self._shown_url):
            shards, rows = self.client.hmget(self.keys.stage(run_id, stage), "shards", "items_total")
        return Division(shards=int(shards or 0), rows=int(rows or 0))

    def note_unfit(self, run_id: str, stage: str, text: str) -> None:
        """Record why a worker handed the stage back, for `mloc status`."""
        with broker_errors(self._shown_url):
            self.client.hset(self.keys.stage(run_id, stage), "unfit", text)
        self.emit(run_id, "unfit", stage=stage, data={"message": text})
