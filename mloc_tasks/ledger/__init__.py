"""The durable record of runs in Redis: states, claims, results, events."""

from mloc_tasks.ledger.ledger import Ledger
from mloc_tasks.ledger.records import (
    GATHER,
    SCATTER,
    Claim,
    ClaimStatus,
    Event,
    Failure,
    NewRun,
    NewStage,
    RunRecord,
    ShardRecord,
    ShardSlice,
    StageJob,
    StageRecord,
    StageResult,
)
from mloc_tasks.ledger.states import State, check_transition

__all__ = [
    "GATHER",
    "SCATTER",
    "Claim",
    "ClaimStatus",
    "Event",
    "Failure",
    "Ledger",
    "NewRun",
    "NewStage",
    "RunRecord",
    "ShardRecord",
    "ShardSlice",
    "StageJob",
    "StageRecord",
    "StageResult",
    "State",
    "check_transition",
]
