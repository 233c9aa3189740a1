"""The end of a run: its result in its place, its state final."""

from __future__ import annotations

from mloc_tasks.data.items import RESPONSES
from mloc_tasks.ledger import State
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
        if stage.name == wanted and stage.result is not None:
            # Before the state moves: whoever waits for the end finds the file.
            place.store.copy(f"{stage.result.prefix}/{RESPONSES}", f"{run_id}/{RESPONSES}")
    return place.ledger.finish(run_id)
