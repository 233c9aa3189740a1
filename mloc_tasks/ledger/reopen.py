"""Runs taken up again: reopened after their end, resent when their messages are lost, ended when nobody is left to."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping

from mloc_tasks.errors import ResumeError
from mloc_tasks.ledger.connection import broker_errors
from mloc_tasks.ledger.events import parse_event
from mloc_tasks.ledger.records import Event, ShardRecord
from mloc_tasks.ledger.runs import SCAN_BATCH, RunRecords
from mloc_tasks.ledger.states import State

NEWEST = "+"


class Reopening(RunRecords):
    """What is done to a run from outside of its own messages; each change is one atomic step in Redis."""

    def reopen(self, run_id: str, stages: Mapping[str, bool], *, generation: int) -> None:
        """Queue stages of a run that has ended again, as its next generation.

        Args:
            stages: by name; True queues all of the stage, also what is done, False its shards that are not done.
            generation: of the run when the caller decided on the stages.

        Raises ResumeError for a run that is still going, or that somebody else has reopened meanwhile.
        """
        names = [word for name, whole in stages.items() for word in (name, int(whole))]
        args = [time.time(), self._events_kept, self._retention_sec, generation, *names]
        answer = self._script_on(
            "reopen", run_id, [key for name in stages for key in self.keys.of_stage(run_id, name)], args
        )
        if answer == "missing":
            self.run(run_id)
        if answer == "changed":
            raise ResumeError(f"run {run_id} was resumed by somebody else at the same time")
        if answer != "ok":
            raise ResumeError(f"run {run_id} is {answer}", hint="only a run that has ended can be resumed")

    def note_resent(self, run_id: str, *, resends: int, reason: str) -> bool:
        """Note that the messages of a run are sent again; False where somebody else did so since `resends` was read."""
        args = [time.time(), self._events_kept, resends, reason]
        return bool(self._script_on("resend", run_id, [], args) == "ok")

    def bury(self, run_id: str, stages: Iterable[str]) -> bool:
        """End a cancelled run's open `stages` whose workers are gone; False where one of them lives."""
        stages = tuple(stages)
        args = [time.time(), self._events_kept, self.keys.lease(""), *stages]
        answer = self._script_on("bury", run_id, [self.keys.shards(run_id, name) for name in stages], args)
        if answer == "ok":
            self.finish(run_id)
        return bool(answer == "ok")

    def open_runs(self) -> Iterator[str]:
        """The ids of all runs that have not ended, the oldest first."""
        first = 0
        while True:
            with broker_errors(self._shown_url):
                ids = self.client.zrange(self.keys.index, first, first + SCAN_BATCH - 1)
                with self.client.pipeline(transaction=False) as pipe:
                    for run_id in ids:
                        pipe.hget(self.keys.run(run_id), "state")
                    states = pipe.execute()
            yield from (
                run_id for run_id, state in zip(ids, states, strict=True) if state and not State(state).is_final
            )
            if len(ids) < SCAN_BATCH:
                return
            first += SCAN_BATCH

    def open_shards_of(self, run_id: str, stage: str) -> list[ShardRecord]:
        """All records of a stage that are not over, `scatter` and `gather` among them."""
        with broker_errors(self._shown_url):
            found = self.client.hscan_iter(self.keys.shards(run_id, stage), count=SCAN_BATCH)
            records = (ShardRecord.from_json(shard, text) for shard, text in found)
            return [record for record in records if not record.state.is_final]

    def open_shard_numbers(self, run_id: str, stage: str) -> list[int]:
        """The numbers of the shards that are not over, in order."""
        return sorted(int(record.shard) for record in self.open_shards_of(run_id, stage) if record.shard.isdigit())

    def recent_events(self, run_id: str, *, since: float) -> Iterator[Event]:
        """The run's events from now back to the time `since`, the newest first."""
        before = NEWEST
        while True:
            with broker_errors(self._shown_url):
                page = self.client.xrevrange(self.keys.events(run_id), max=before, count=SCAN_BATCH)
            for entry_id, fields in page:
                event = parse_event(entry_id, fields)
                if event.time < since:
                    return
                yield event
            if len(page) < SCAN_BATCH:
                return
            before = f"({page[-1][0]}"

    def leases(self, workers: Iterable[str]) -> dict[str, str]:
        """The leases of those workers that live: which life of theirs it is. See `ShardRecord.stands_under`."""
        names = sorted(set(workers))
        with broker_errors(self._shown_url), self.client.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.get(self.keys.lease(name))
            return {name: life for name, life in zip(names, pipe.execute(), strict=True) if life is not None}
