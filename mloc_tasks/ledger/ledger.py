"""The ledger: what is true about runs. Messages are hints; this is the record that claims and commits go through."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any

from mloc_tasks.errors import IllegalTransitionError, RunNotFoundError, StaleAttemptError
from mloc_tasks.ledger.connection import Client, Scripts, broker_errors, connect
from mloc_tasks.ledger.events import FIRST, follow_events, read_events
from mloc_tasks.ledger.keys import Keys
from mloc_tasks.ledger.records import (
    GATHER,
    SCATTER,
    Claim,
    ClaimStatus,
    Event,
    Failure,
    NewRun,
    RunRecord,
    ShardRecord,
    ShardSlice,
    StageJob,
    StageRecord,
    StageResult,
)
from mloc_tasks.ledger.states import State
from mloc_tasks.settings import DAY_SEC, Settings, get_settings

WRITE_BATCH = 1_000
SCAN_BATCH = 1_000
JOBS_KEPT = 64


class Ledger:
    """Reads and writes the record of runs.

    Every method raises `BrokerError` when Redis does not answer. Times are seconds since the epoch.
    """

    def __init__(self, client: Client, settings: Settings) -> None:
        self.client = client
        self.keys = Keys(settings.prefix)
        self._shown_url = settings.shown_redis_url
        self._retention_sec = int(settings.retention_days * DAY_SEC)
        self._events_kept = settings.events_per_run
        self._scripts = Scripts(client)
        self.stage_job = lru_cache(maxsize=JOBS_KEPT)(self._stage_job)

    @classmethod
    def connect(cls, settings: Settings | None = None) -> Ledger:
        """A ledger on the Redis of the settings."""
        settings = settings or get_settings()
        return cls(connect(settings), settings)

    def ping(self) -> None:
        """Raise `BrokerError` unless Redis answers."""
        with broker_errors(self._shown_url):
            self.client.ping()

    # -- runs

    def create(self, run: NewRun) -> None:
        """Record a new run with all its stages queued, in one transaction."""
        now = time.time()
        names = tuple(stage.name for stage in run.stages)
        with broker_errors(self._shown_url), self.client.pipeline(transaction=True) as pipe:
            pipe.hset(
                self.keys.run(run.id),
                mapping={
                    "name": run.name,
                    "owner": run.owner,
                    "labels": json.dumps(run.labels),
                    "header": json.dumps(run.header),
                    "kind": run.header.get("kind", ""),
                    "state": State.QUEUED,
                    "created": now,
                    "stages": json.dumps(names),
                    "result_stage": run.result_stage,
                    "on_failure": run.on_failure,
                    "spec": run.spec_text,
                    "warnings": json.dumps(run.warnings),
                },
            )
            for stage in run.stages:
                pipe.hset(self.keys.states(run.id), stage.name, State.QUEUED)
                pipe.hset(
                    self.keys.stage(run.id, stage.name),
                    mapping={
                        "document": json.dumps(stage.document, ensure_ascii=False),
                        "depends_on": json.dumps(stage.depends_on),
                        "queue": stage.queue,
                        "task_type": stage.document.get("task_type", ""),
                        "priority": stage.priority,
                        "scattered": int(stage.scattered),
                        **({} if stage.scattered else {"shards": 1}),
                    },
                )
                first = (SCATTER, GATHER) if stage.scattered else ("0",)
                pipe.hset(self.keys.shards(run.id, stage.name), mapping=dict.fromkeys(first, '{"state":"queued"}'))
            pipe.xadd(self.keys.events(run.id), _event_fields(now, kind="run", state=State.QUEUED))
            for key in self.keys.of_run(run.id, names):
                pipe.expire(key, self._retention_sec)
            pipe.zadd(self.keys.index, {run.id: now})
            pipe.execute()

    def run(self, run_id: str) -> RunRecord:
        """The run's record. Raises `RunNotFoundError`."""
        with broker_errors(self._shown_url):
            body = self.client.hgetall(self.keys.run(run_id))
        if not body:
            raise RunNotFoundError(
                f"no run {run_id!r} in the ledger at {self._shown_url}",
                hint="`mloc list` shows the runs that are kept; they are dropped after MLOC_RETENTION_DAYS",
            )
        return _run_record(run_id, body)

    def runs(self, *, limit: int = 100) -> Iterator[RunRecord]:
        """The newest runs first. Index entries of runs whose retention has passed are removed on the way."""
        with broker_errors(self._shown_url):
            for run_id in self.client.zrevrange(self.keys.index, 0, limit - 1):
                body = self.client.hgetall(self.keys.run(run_id))
                if body:
                    yield _run_record(run_id, body)
                else:
                    self.client.zrem(self.keys.index, run_id)

    def spec_text(self, run_id: str) -> str:
        """The document as it was submitted."""
        with broker_errors(self._shown_url):
            return str(self.client.hget(self.keys.run(run_id), "spec") or "")

    def stages(self, run_id: str) -> list[StageRecord]:
        """The run's stages in the order of its document. Raises `RunNotFoundError`."""
        names = self.run(run_id).stages
        with broker_errors(self._shown_url), self.client.pipeline(transaction=True) as pipe:
            pipe.hgetall(self.keys.states(run_id))
            for name in names:
                pipe.hgetall(self.keys.stage(run_id, name))
            states, *bodies = pipe.execute()
        return [_stage_record(name, states[name], body) for name, body in zip(names, bodies, strict=True)]

    def shards(self, run_id: str, stage: str) -> Iterator[ShardRecord]:
        """The stage's shards in no order, without the records of `scatter` and `gather`."""
        with broker_errors(self._shown_url):
            for shard, text in self.client.hscan_iter(self.keys.shards(run_id, stage), count=SCAN_BATCH):
                if shard not in (SCATTER, GATHER):
                    yield ShardRecord.from_json(shard, text)

    def cancel(self, run_id: str) -> State:
        """Ask for the end of a run: what is queued never starts. Returns the run's state now."""
        state = self._script("cancel", run_id, "", [time.time(), self._events_kept])
        if not state:
            self.run(run_id)
        return State(state)

    def finish(self, run_id: str) -> State:
        """End a run whose stages are all over; a run that has ended already stays as it is."""
        state, _moved = self._script("finish", run_id, "", [time.time(), self._events_kept])
        if state == "missing":
            self.run(run_id)
        with broker_errors(self._shown_url), self.client.pipeline(transaction=False) as pipe:
            names = tuple(json.loads(self.client.hget(self.keys.run(run_id), "stages") or "[]"))
            for key in self.keys.of_run(run_id, names):
                pipe.expire(key, self._retention_sec)
            pipe.zremrangebyscore(self.keys.index, 0, time.time() - 2 * self._retention_sec)
            pipe.execute()
        return State(state)

    def fail_submission(self, run_id: str, failure: Failure) -> None:
        """Record that a run's messages could not be sent: nothing of it will start."""
        with broker_errors(self._shown_url):
            self.client.hset(self.keys.run(run_id), "error", failure.to_json())
        self.cancel(run_id)

    # -- attempts

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
        with broker_errors(self._shown_url):
            text = self.client.hget(self.keys.shards(run_id, stage), shard)
        record = ShardRecord.from_json(shard, text) if text else None
        return record is not None and record.attempt == attempt and bool(record.holder)

    def open_shards(self, run_id: str, stage: str, *, attempt: int, slices: Iterable[ShardSlice], rows: int) -> int:
        """Record the shards that a scattered stage is split into; returns how many. Raises `StaleAttemptError`."""
        key = self.keys.shards(run_id, stage)
        count = 0
        with broker_errors(self._shown_url), self.client.pipeline(transaction=False) as pipe:
            for rows_of_shard in slices:
                offset = -1 if rows_of_shard.offset is None else rows_of_shard.offset
                # Never over a record that is there: another copy of this message may have come first.
                text = f'{{"state":"queued","slice":[{rows_of_shard.start},{rows_of_shard.stop},{offset}]}}'
                pipe.hsetnx(key, str(count), text)
                count += 1
                if count % WRITE_BATCH == 0:
                    pipe.execute()
            pipe.execute()
        answer = self._script("scatter", run_id, stage, [stage, attempt, time.time(), count, rows, self._events_kept])
        if answer != "ok":
            raise StaleAttemptError(f"{run_id}/{stage}: a newer attempt has split this stage")
        return count

    def shard_count(self, run_id: str, stage: str) -> int:
        """How many shards the stage has; 0 while that is not decided."""
        with broker_errors(self._shown_url):
            return int(self.client.hget(self.keys.stage(run_id, stage), "shards") or 0)

    def note_unfit(self, run_id: str, stage: str, text: str) -> None:
        """Record why a worker handed the stage back, for `mloc status`."""
        with broker_errors(self._shown_url):
            self.client.hset(self.keys.stage(run_id, stage), "unfit", text)
        self.emit(run_id, "unfit", stage=stage, data={"message": text})

    # -- events

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
        fields = _event_fields(time.time(), kind=kind, stage=stage, shard=shard, attempt=attempt, data=data or {})
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

    def follow(self, run_id: str, *, after: str = FIRST) -> Iterator[Event | None]:
        """Events as they come, until the run ends; None whenever a second passed without any."""
        with broker_errors(self._shown_url):
            yield from follow_events(self.client, self.keys.events(run_id), after=after)

    def _script(self, name: str, run_id: str, stage: str, args: list[Any]) -> Any:
        keys = [
            self.keys.run(run_id),
            self.keys.states(run_id),
            self.keys.stage(run_id, stage),
            self.keys.shards(run_id, stage),
            self.keys.events(run_id),
        ]
        with broker_errors(self._shown_url):
            return self._scripts.run(name, keys, args)


def _event_fields(
    now: float,
    *,
    kind: str,
    stage: str = "",
    shard: str = "",
    attempt: int = 0,
    state: str = "",
    data: dict[str, Any] | None = None,
) -> dict[Any, Any]:
    return {
        "t": now,
        "kind": kind,
        "stage": stage,
        "shard": shard,
        "attempt": attempt or "",
        "state": state,
        "data": json.dumps(data or {}, ensure_ascii=False),
    }


def _float(text: str | None) -> float | None:
    return float(text) if text else None


def _run_record(run_id: str, body: dict[str, str]) -> RunRecord:
    return RunRecord(
        id=run_id,
        name=body["name"],
        owner=body["owner"],
        labels=json.loads(body["labels"]),
        kind=body["kind"],
        state=State(body["state"]),
        created=float(body["created"]),
        started=_float(body.get("started")),
        ended=_float(body.get("ended")),
        error=Failure.from_json(body.get("error")),
        stages=tuple(json.loads(body["stages"])),
        result_stage=body["result_stage"],
        cancel_requested="cancel" in body,
        warnings=tuple(json.loads(body["warnings"])),
    )


def _stage_record(name: str, state: str, body: dict[str, str]) -> StageRecord:
    return StageRecord(
        name=name,
        state=State(state),
        queue=body["queue"],
        depends_on=tuple(json.loads(body["depends_on"])),
        task_type=body["task_type"],
        scattered=body["scattered"] == "1",
        shards=int(body["shards"]) if "shards" in body else None,
        shards_done=int(body.get("shards_done", 0)),
        shards_failed=int(body.get("shards_failed", 0)),
        items_done=int(body.get("items_done", 0)),
        items_total=int(body["items_total"]) if "items_total" in body else None,
        started=_float(body.get("started")),
        ended=_float(body.get("ended")),
        error=Failure.from_json(body.get("error")),
        result=StageResult.from_json(body.get("result")),
        unfit=body.get("unfit", ""),
    )
