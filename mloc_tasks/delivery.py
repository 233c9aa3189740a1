"""`output.destination`: the further place that a stage's outputs go to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mloc_tasks.artifacts import ArtifactStore, open_store
from mloc_tasks.delivery_http import send
from mloc_tasks.errors import ExecutionError
from mloc_tasks.settings import Settings
from mloc_tasks.spec.model.output import Destination

if TYPE_CHECKING:
    from mloc_tasks.attempt import Attempt


def deliver(out_dir: Path, destination: Destination, *, attempt: Attempt) -> None:
    """Copy every file of `out_dir` to the destination, over what an earlier run left there.

    A relative path lies under the root of the artifact store, an absolute one needs `MLOC_OUTPUT_ROOTS`; what a web
    server gets is said in `mloc_tasks.delivery_http`.
    Raises ExecutionError for a place that may not be written, and the errors of the store.
    """
    if destination.type == "http":
        send(out_dir, destination, run_id=attempt.job.run_id, stage=attempt.job.stage)
        return
    target, prefix = _place(destination, attempt.place.store, attempt.place.settings)
    for path in sorted(path for path in out_dir.rglob("*") if path.is_file()):
        name = path.relative_to(out_dir).as_posix()
        target.put_file(path, f"{prefix}/{name}" if prefix else name)


def refusal(destination: Destination, settings: Settings) -> str | None:
    """Why outputs may not go to a destination in this installation, or None when they may."""
    path = destination.path
    if destination.type == "local" and path is not None and Path(path).is_absolute():
        roots = [root.expanduser().resolve() for root in settings.output_roots]
        if not any(Path(path).resolve().is_relative_to(root) for root in roots):
            allowed = ", ".join(map(str, roots)) or "nothing"
            return f"output.destination.path {path!r} is absolute, and MLOC_OUTPUT_ROOTS allows {allowed}"
    return None


def _place(destination: Destination, store: ArtifactStore, settings: Settings) -> tuple[ArtifactStore, str]:
    reason = refusal(destination, settings)
    if reason is not None:
        raise ExecutionError(reason, hint="write a relative path, or ask the operator to allow that directory")
    if destination.type == "s3":
        url = destination.url or f"s3://{destination.path}"
        endpoint = settings.s3_endpoint_url or None
        return open_store(url, endpoint_url=endpoint, path_style=settings.s3_path_style), ""
    location = destination.path or (destination.url or "").removeprefix("file://")
    if Path(location).is_absolute():
        return open_store(location), ""
    return store, location.strip("/")
