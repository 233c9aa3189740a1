"""The names of the ledger's keys in Redis. Everything of one run shares the hash tag `{run_id}`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Keys:
    """Key names under one prefix.

    run     hash     the run's own fields: name, owner, state, timestamps, error, plan
    states  hash     stage name -> state
    stage   hash     a stage's document, routing, counts, timestamps, error, result
    shards  hash     shard number (or "scatter", "gather") -> record as JSON
    events  stream   everything that happened, bounded
    """

    prefix: str

    def run(self, run_id: str) -> str:
        return f"{self.prefix}run:{{{run_id}}}"

    def states(self, run_id: str) -> str:
        return f"{self.run(run_id)}:states"

    def stage(self, run_id: str, stage: str) -> str:
        return f"{self.run(run_id)}:stage:{stage}"

    def shards(self, run_id: str, stage: str) -> str:
        return f"{self.run(run_id)}:shards:{stage}"

    def of_stage(self, run_id: str, stage: str) -> tuple[str, str]:
        """Both keys of a stage."""
        return self.stage(run_id, stage), self.shards(run_id, stage)

    def events(self, run_id: str) -> str:
        return f"{self.run(run_id)}:events"

    @property
    def index(self) -> str:
        """Sorted set of run ids by time of submission."""
        return f"{self.prefix}runs"

    def models(self, worker_id: str) -> str:
        """Hash: process id -> the model that it holds."""
        return f"{self.prefix}models:{worker_id}"

    def warm(self, key: str) -> str:
        """Set of the workers that hold the model of that key; see `mloc_tasks.warmth`."""
        return f"{self.prefix}warm:{key}"

    def left(self, key: str) -> str:
        """Sorted set of the messages that are left to who holds the model of that key, by when they first were."""
        return f"{self.prefix}left:{key}"

    def lease(self, worker_id: str) -> str:
        """Exists while a worker renews it: as long as it does, nobody else may take its shards."""
        return f"{self.prefix}lease:{worker_id}"

    @property
    def unacked_index(self) -> str:
        """The broker's own: when each unacknowledged delivery was last seen alive [kombu/transport/redis.py]."""
        return f"{self.prefix}unacked_index"

    @property
    def unacked(self) -> str:
        """The broker's own: the deliveries that nobody has acknowledged yet [kombu/transport/redis.py]."""
        return f"{self.prefix}unacked"

    def cache(self, fingerprint: str) -> str:
        """Where the result of a completed stage of that fingerprint lies, as JSON."""
        return f"{self.prefix}cache:{fingerprint}"

    @property
    def workers(self) -> str:
        """Set of worker ids seen lately."""
        return f"{self.prefix}workers"

    def worker(self, worker_id: str) -> str:
        """A worker's description, as JSON; expires when its signs of life stop."""
        return f"{self.prefix}worker:{worker_id}"

    def of_run(self, run_id: str, stages: tuple[str, ...]) -> list[str]:
        """Every key that belongs to a run."""
        own = [self.run(run_id), self.states(run_id), self.events(run_id)]
        return own + [key for stage in stages for key in self.of_stage(run_id, stage)]
