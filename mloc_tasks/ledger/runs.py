"""The record of runs and their stages, from creation to end."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

from mloc_tasks.errors import RunNotFoundError
from mloc_tasks.ledger.connection import broker_errors
from mloc_tasks.ledger.core import LedgerCore, event_fields
from mloc_tasks.ledger.records import GATHER, SCATTER, Failure, NewRun, RunRecord, ShardRecord, StageRecord, StageResult
from mloc_tasks.ledger.states import State

SCAN_BATCH = 1_000


class RunRecords(LedgerCore):
    """Creates, reads, cancels and ends runs."""

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
                        **({} if stage.slo_seconds is None else {"slo_seconds": stage.slo_seconds}),
                        "scattered": int(stage.scattered),
                        **({} if stage.scattered else {"shards": 1}),
                    },
                )
                first = (SCATTER, GATHER) if stage.scattered else ("0",)
                pipe.hset(self.keys.shards(run.id, stage.name), mapping=dict.fromkeys(first, '{"state":"queued"}'))
            pipe.xadd(self.keys.events(run.id), event_fields(now, kind="run", state=State.QUEUED))
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

    def shard(self, run_id: str, stage: str, shard: str) -> ShardRecord | None:
        """One shard, `scatter` or `gather`; None where there is none."""
        with broker_errors(self._shown_url):
            text = self.client.hget(self.keys.shards(run_id, stage), shard)
        return ShardRecord.from_json(shard, text) if text else None

    def cancel(self, run_id: str) -> State:
        """Ask for the end of a run: what is queued never starts. Returns the run's state now."""
        state = self._script("cancel", run_id, "", [time.time(), self._events_kept])
        if not state:
            self.run(run_id)
        return State(state)

    def is_open(self, run_id: str, stage: str) -> bool:
        """Whether a stage is still to be run, or running."""
        with broker_errors(self._shown_url):
            state = self.client.hget(self.keys.states(run_id), stage)
        return bool(state) and not State(state).is_final

    def cancel_requested(self, run_id: str) -> bool:
        """Whether somebody has asked for the end of the run."""
        with broker_errors(self._shown_url):
            return bool(self.client.hexists(self.keys.run(run_id), "cancel"))

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
        generation=int(body.get("generation", 0)),
        resent=_float(body.get("resent")),
        resends=int(body.get("resends", 0)),
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
        slo_seconds=_float(body.get("slo_seconds")),
        priority=int(body["priority"]),
    )
