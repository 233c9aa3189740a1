"""What the ledger gives back, typed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any

from mloc_tasks.capabilities import Requirement
from mloc_tasks.ledger.states import State
from mloc_tasks.spec.model.resources import Cache, Retry
from mloc_tasks.spec.quantities import parse_seconds

SCATTER = "scatter"
GATHER = "gather"


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """Why an attempt, stage or run failed: the cause, where it happened, and the last lines that were logged there."""

    message: str
    type: str = ""
    hint: str = ""
    stage: str = ""
    shard: str = ""
    attempt: int = 0
    worker: str = ""
    retryable: bool = False
    log: str = ""

    def to_json(self) -> str:
        return json.dumps({name: getattr(self, name) for name in self.__slots__}, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str | None) -> Failure | None:
        return cls(**json.loads(text)) if text else None

    def __str__(self) -> str:
        place = f"stage {self.stage}" if self.stage else "run"
        if self.shard not in {"", "0"}:
            place += f", shard {self.shard}"
        if self.attempt:
            place += f", attempt {self.attempt}"
        if self.worker:
            place += f" on {self.worker}"
        return f"{place}: {self.message}"


@dataclass(frozen=True, kw_only=True, slots=True)
class NewStage:
    """A stage as a run is created with."""

    name: str
    depends_on: tuple[str, ...]
    document: dict[str, Any]
    queue: str
    priority: int
    scattered: bool
    slo_seconds: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class NewRun:
    """A run as it is created. `header` is what a document says beside its stages: apiVersion, kind, metadata."""

    id: str
    name: str
    owner: str
    labels: dict[str, str]
    header: dict[str, Any]
    stages: tuple[NewStage, ...]
    on_failure: str
    result_stage: str
    spec_text: str
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class RunRecord:
    """A run as it stands. Times are seconds since the epoch."""

    id: str
    name: str
    owner: str
    labels: dict[str, str]
    kind: str
    state: State
    created: float
    started: float | None
    ended: float | None
    error: Failure | None
    stages: tuple[str, ...]
    result_stage: str
    cancel_requested: bool
    warnings: tuple[str, ...] = ()
    generation: int = 0  # how often it was resumed
    resent: float | None = None  # when its messages were last sent again, and how often since it began
    resends: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class StageRecord:
    """A stage as it stands. `shards` is None until a scattered stage has counted its input."""

    name: str
    state: State
    queue: str
    depends_on: tuple[str, ...]
    task_type: str
    scattered: bool
    shards: int | None
    shards_done: int
    shards_failed: int
    items_done: int
    items_total: int | None
    started: float | None
    ended: float | None
    error: Failure | None
    result: StageResult | None
    unfit: str = ""
    slo_seconds: float | None = None
    priority: int = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class StageResult:
    """Where a finished stage's files lie in the artifact store, and how many rows it gave.

    `reused`: an earlier stage left them there. It is not stored: the stage's state says so.
    """

    prefix: str
    items: int | None = None
    reused: bool = False

    def to_json(self) -> str:
        return json.dumps({"prefix": self.prefix, "items": self.items})

    @classmethod
    def from_json(cls, text: str | None) -> StageResult | None:
        return cls(**json.loads(text)) if text else None


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardSlice:
    """The rows [start, stop) of a stage's input, and the byte where `start` begins, where that is known."""

    start: int
    stop: int
    offset: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Division:
    """How a stage is split: into so many shards, which have so many rows together."""

    shards: int
    rows: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardRecord:
    """A shard as it stands; `history` holds the attempts that ended without settling it.

    Of a run that was resumed: the `generation` in which it was last queued, `base` the attempts before that, `fresh`
    whether its whole stage is wanted anew, so that no earlier result will do.
    """

    shard: str
    state: State
    attempt: int = 0
    worker: str = ""
    holder: str = ""
    started: float | None = None
    ended: float | None = None
    error: Failure | None = None
    rows: ShardSlice | None = None
    base: int = 0
    generation: int = 0
    fresh: bool = False
    history: tuple[dict[str, Any], ...] = field(default=())

    @property
    def tries(self) -> int:
        """The attempts that count against `retry.maxAttempts`."""
        return self.attempt - self.base

    def stands_under(self, leases: Mapping[str, str]) -> bool:
        """Whether a live worker holds the shard, in the same life as when it took it. As `stands` in common.lua."""
        life = self.holder.partition(":")[2].partition(":")[2]
        return bool(self.holder) and self.worker in leases and life in ("", leases[self.worker])

    @classmethod
    def from_json(cls, shard: str, text: str) -> ShardRecord:
        body = json.loads(text)
        error = body.get("error")
        rows = body.get("slice")
        return cls(
            shard=shard,
            state=State(body["state"]),
            attempt=body.get("attempt", 0),
            worker=body.get("worker", ""),
            holder=body.get("holder") or "",
            started=body.get("started"),
            ended=body.get("ended"),
            error=Failure(**error) if error else None,
            rows=ShardSlice(start=rows[0], stop=rows[1], offset=rows[2] if rows[2] >= 0 else None) if rows else None,
            base=body.get("base", 0),
            generation=body.get("generation", 0),
            fresh=body.get("fresh", False),
            history=tuple(body.get("history") or ()),
        )


class ClaimStatus(StrEnum):
    """The answer to a claim."""

    CLAIMED = "claimed"
    SETTLED = "settled"  # the shard has its final state already, or got one now (skipped, cancelled)
    BUSY = "busy"  # a live worker holds it
    WAITING = "waiting"  # a stage it depends on is not over
    MISSING = "missing"  # the run is not in the ledger any more


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    status: ClaimStatus
    shard: ShardRecord | None = None


@dataclass(frozen=True, kw_only=True)
class StageJob:
    """What never changes about a stage of a run; workers keep it in memory between shards."""

    run_id: str
    stage: str
    header: dict[str, Any]
    document: dict[str, Any]
    depends_on: tuple[str, ...]
    scattered: bool
    queue: str
    priority: int

    def ends_with(self, shard: str) -> bool:
        """Whether the end of `shard` is the end of the stage. Of a scattered stage's shards none is: its gather is, and
        its scatter when it fails."""
        return not (self.scattered and shard.isdigit())

    @cached_property
    def requirement(self) -> Requirement:
        """What the stage asks of a worker's machine."""
        return Requirement.of_document(self.document)

    @cached_property
    def timeout(self) -> float | None:
        """Seconds that one attempt may take."""
        value = self.document.get("timeout")
        return None if value is None else parse_seconds(value)

    @cached_property
    def cache(self) -> Cache:
        """Whether an earlier result will do."""
        return Cache.model_validate(self.document.get("cache") or {})

    @cached_property
    def retry(self) -> Retry:
        """How often the stage's shards may be tried."""
        return Retry.model_validate(self.document.get("retry") or {})


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """Something that happened. `data` depends on `kind`: run, stage, shard, scatter, unfit, progress, log, metrics."""

    id: str
    time: float
    kind: str
    stage: str = ""
    shard: str = ""
    attempt: int = 0
    state: str = ""
    data: dict[str, Any] = field(default_factory=dict)
