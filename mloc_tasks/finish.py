"""The end of a run: its result in its place, its state final."""

from __future__ import annotations

import contextlib

from mloc_tasks.checkpoints.saved import remove_checkpoints
from mloc_tasks.data.items import RESPONSES
from mloc_tasks.errors import MlocError
from mloc_tasks.executors.registry import executor_class
from mloc_tasks.ledger import StageRecord, State
from mloc_tasks.workplace import Workplace


def finish_run(place: Workplace, run_id: str) -> State:
    """Copy the last stage's `responses.json` to `<root>/<run_id>/`, then record the run's final state.

    What killed attempts left on the way goes before.
    """
    wanted = place.ledger.run(run_id).result_stage
    stages = place.ledger.stages(run_id)
    if all(stage.state.is_final for stage in stages):
        place.sweep(run_id)
    for stage in stages:
        if stage.state.is_success:
            _remove_left_checkpoints(place, run_id, stage)
        if stage.name == wanted and stage.result is not None:
            # Before the state moves: whoever waits for the end finds the file.
            place.store.copy(f"{stage.result.prefix}/{RESPONSES}", f"{run_id}/{RESPONSES}")
    return place.ledger.finish(run_id)


def _remove_left_checkpoints(place: Workplace, run_id: str, stage: StageRecord) -> None:
    """Remove those of a worker that was killed between the stage's last commit and their removal."""
    with contextlib.suppress(MlocError):  # not installed here, or the store is away: they are no more than left over
        if executor_class(stage.task_type).keeps_checkpoints:
            for shard in range(stage.shards or 1):
                remove_checkpoints(place.store, f"{run_id}/{stage.name}/{shard}")
