"""Results of earlier stages, found by fingerprint and used again."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from mloc_tasks.artifacts import ArtifactStore
from mloc_tasks.data.items import RESPONSES
from mloc_tasks.delivery import deliver
from mloc_tasks.fingerprint import ManifestOf, fingerprint
from mloc_tasks.ledger import StageResult

if TYPE_CHECKING:
    from mloc_tasks.attempt import Attempt
    from mloc_tasks.data.locate import OpenUrl
    from mloc_tasks.executors.base import Executor
    from mloc_tasks.outputs import Outputs
    from mloc_tasks.spec import StageSpec


def earlier_result(
    attempt: Attempt,
    document: dict[str, Any],
    *,
    spec: StageSpec,
    executor: Executor,
    outputs: Outputs,
    manifest_of: ManifestOf,
    open_url: OpenUrl,
) -> StageResult | None:
    """The result of an earlier stage that this one would only repeat; None where it has to run.

    Notes the fingerprint in the ledger, under which this stage's own result is found later. Delivers an earlier result
    to `output.destination` as its own would be.
    """
    place, job = attempt.place, attempt.job
    if not job.cache.enabled:
        return None
    digest = fingerprint(
        document,
        spec=spec,
        executor=executor,
        manifest_of=manifest_of,
        open_url=open_url,
        cache_dir=place.settings.cache_dir,
    )
    place.ledger.note_fingerprint(job.run_id, job.stage, digest)
    if attempt.record.fresh:
        return None  # the user asked for this stage to run again
    found = place.ledger.result_of(digest)
    if found is None or not is_whole(place.store, found.prefix) or not _gives(place.store, found.prefix, outputs):
        return None
    if spec.output.destination is not None:
        with place.scratch(job.run_id) as folder:
            place.store.get_dir(found.prefix, folder)
            outputs.make_archives(folder)
            deliver(folder, spec.output.destination, attempt=attempt)
    if found.items is not None:
        attempt.report.progress(found.items, found.items)
    return StageResult(prefix=found.prefix, items=found.items, reused=True)


def _gives(store: ArtifactStore, prefix: str, outputs: Outputs) -> bool:
    """Whether an earlier result has the addresses that later stages of this run refer to."""
    asked = outputs.addresses & outputs.referenced
    return not asked or asked <= json.loads(store.read_bytes(f"{prefix}/{RESPONSES}")).keys()


def is_whole(store: ArtifactStore, prefix: str) -> bool:
    """Whether every file of a stored directory is still there, with its size."""
    manifest = store.manifest(prefix)
    if manifest is None:
        return False
    there = {info.name: info.size for info in store.list(prefix)}
    return all(there.get(f"{prefix}/{info.name}") == info.size for info in manifest.files)
