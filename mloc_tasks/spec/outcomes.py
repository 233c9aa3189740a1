"""What `evaluate` and `embedding` make is one whole; what must hold so that it can be."""

from __future__ import annotations

from mloc_tasks.spec.metrics import BUILT_IN_METRICS
from mloc_tasks.spec.model.stage import StageSpec
from mloc_tasks.spec.origins import Origins
from mloc_tasks.spec.stages import Draft


def check_scoring(draft: Draft, spec: StageSpec, origins: Origins) -> None:
    """A stage of task type `evaluate` says what it measures, and reads its rows in one stream."""
    if spec.task_type != "evaluate":
        return
    if draft.document.get("evaluate") is None:
        known = ", ".join(BUILT_IN_METRICS)
        advice = f"add evaluate: {{metrics: [...], references: ...}}; known metrics are {known}"
        origins.report(draft.origin, f"stage `{draft.name}` (evaluate) does not say what it measures", advice)
    if spec.parallel.enabled:
        origins.report(
            draft.place(origins, "parallel"),
            f"stage `{draft.name}` (evaluate) has one mean over all of its rows and cannot be split into shards",
            f"write parallel: {{enabled: false}} in `{draft.name}`",
        )


def check_vectors(draft: Draft, spec: StageSpec, origins: Origins) -> None:
    """A stage of task type `embedding` that is split has its vectors in the items, which are what shards merge."""
    if spec.task_type != "embedding" or spec.embedding is None or not spec.parallel.enabled:
        return
    if spec.embedding.output in ("npy", "both"):
        origins.report(
            draft.place(origins, "embedding", "output"),
            f"with `parallel` the vectors stand in the items: output {spec.embedding.output} cannot be",
            "write output: items, or parallel: {enabled: false}",
        )
