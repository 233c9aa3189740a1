"""The handle of a submitted run."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, BinaryIO

from mloc_tasks.artifacts import ArtifactInfo, ArtifactStore
from mloc_tasks.data.items import RESPONSES
from mloc_tasks.errors import ArtifactNotFoundError, ExecutionError, StoreError
from mloc_tasks.ledger import Event, Ledger, RunRecord, StageRecord, State
from mloc_tasks.ledger.events import BLOCK_MS
from mloc_tasks.settings import Settings, get_settings
from mloc_tasks.worker.registry import consumers, live_workers
from mloc_tasks.workplace import store_of


class RunFailedError(ExecutionError):
    """The run ended without a result: failed or cancelled. The message says where and why."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunStatus:
    """A run as it stands. `waiting` says what holds back stages that are queued."""

    run: RunRecord
    stages: tuple[StageRecord, ...]
    waiting: tuple[str, ...] = ()

    @property
    def state(self) -> State:
        return self.run.state

    def slo(self, stage: StageRecord) -> str:
        """Whether a stage ended within `sloSeconds` of the submission: met, missed, open, or "" where none is set."""
        if stage.slo_seconds is None:
            return ""
        late = (stage.ended or time.time()) - self.run.created > stage.slo_seconds
        return "missed" if late else "met" if stage.ended else "open"


@dataclass(frozen=True, kw_only=True, slots=True)
class Artifact:
    """A file that a stage produced. `name` is what `Run.open` takes; `size` in bytes."""

    name: str
    stage: str
    size: int
    sha256: str
    url: str


class Run:
    """A submitted run. Cheap to make; every method reads the ledger anew and raises `RunNotFoundError` without one."""

    def __init__(self, run_id: str, *, ledger: Ledger | None = None, settings: Settings | None = None) -> None:
        self.id = run_id
        self._settings = settings or get_settings()
        self._ledger = ledger or Ledger.connect(self._settings)

    def __repr__(self) -> str:
        return f"Run({self.id!r})"

    @cached_property
    def store(self) -> ArtifactStore:
        """The artifact store that the run's files lie in."""
        return store_of(self._settings)

    def status(self) -> RunStatus:
        """The run's state, its stages', and what it waits for."""
        run = self._ledger.run(self.id)
        stages = tuple(self._ledger.stages(self.id))
        waiting = () if run.state.is_final else self._waiting(stages)
        return RunStatus(run=run, stages=stages, waiting=waiting)

    def _waiting(self, stages: tuple[StageRecord, ...]) -> tuple[str, ...]:
        over = {stage.name for stage in stages if stage.state.is_final}
        ready = [stage for stage in stages if not stage.state.is_final and over.issuperset(stage.depends_on)]
        if not ready:
            return ()
        live = consumers(live_workers(self._ledger.client, self._ledger.keys))
        found = []
        for stage in ready:
            if not live.get(stage.queue):
                found.append(
                    f"no worker serves queue {stage.queue}; start one with: "
                    f"celery -A mloc_tasks worker -Q {stage.queue}"
                )
            elif stage.unfit and stage.state is State.QUEUED:
                found.append(f"stage {stage.name}: {stage.unfit}")
        return tuple(dict.fromkeys(found))

    def wait(self, timeout: float | None = None) -> State:
        """Wait for the run's end and return the state it ended in. Raises TimeoutError after `timeout` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        newest = self._ledger.last_event(self.id)  # before the state is read, so that no end falls between the two
        if (state := self._ledger.run(self.id).state).is_final:
            return state
        block_ms = BLOCK_MS if timeout is None else max(1, min(BLOCK_MS, int(timeout * 1000)))
        for event in self._ledger.follow(self.id, after=newest, block_ms=block_ms):
            if event is None or (event.kind == "run" and event.state):
                state = self._ledger.run(self.id).state
                if state.is_final:
                    return state
            if deadline is not None and time.monotonic() > deadline:
                raise TimeoutError(f"run {self.id} is {state} after {timeout:g} seconds")
        return self._ledger.run(self.id).state

    def result(self, stage: str | None = None, *, timeout: float | None = None) -> dict[str, Any]:
        """The `responses.json` of the run (or of one stage), waiting for the run's end.

        Raises RunFailedError with the cause, TimeoutError after `timeout` seconds.
        """
        state = self.wait(timeout)
        if stage is None and not state.is_success:
            run = self._ledger.run(self.id)
            hint = run.error.hint if run.error else ""
            raise RunFailedError(f"run {self.id} {state}" + (f": {run.error}" if run.error else ""), hint=hint)
        document: dict[str, Any] = json.loads(self._read(f"{stage}/{RESPONSES}" if stage else RESPONSES))
        return document

    def events(self, *, follow: bool = False) -> Iterator[Event]:
        """What happened so far, oldest first; with `follow`, also what is to come, until the run's end."""
        if follow:
            yield from (event for event in self._ledger.follow(self.id) if event is not None)
            return
        after = "0"
        while page := self._ledger.events(self.id, after=after):
            yield from page
            after = page[-1].id

    def cancel(self) -> State:
        """End the run: what is queued never starts, what runs is ended. Returns the state now; `wait` for the end."""
        return self._ledger.cancel(self.id)

    def resume(self, from_stage: str | None = None) -> tuple[str, ...]:
        """Run what the run has not done, after its end; with `from_stage` also that stage and all that depends on it.

        Returns the names of the stages that run again. Raises ResumeError where that is none, or the run is going on.
        """
        from scheduler.resume import resume

        return resume(self.id, ledger=self._ledger, settings=self._settings, from_stage=from_stage)

    def retry_failed(self) -> tuple[str, ...]:
        """Run what failed again, and what was skipped because of it; returns and raises as `resume`."""
        from scheduler.resume import retry_failed

        return retry_failed(self.id, ledger=self._ledger, settings=self._settings)

    def artifacts(self) -> list[Artifact]:
        """The files of all finished stages."""
        found: list[Artifact] = []
        for stage in self._ledger.stages(self.id):
            if stage.result is None:
                continue
            prefix = stage.result.prefix
            manifest = self.store.manifest(prefix)
            files = manifest.files if manifest is not None else ()
            found.extend(self._artifact(stage.name, prefix, file) for file in files)
        return found

    def open(self, name: str) -> BinaryIO:
        """Read one file: `responses.json` of the run, or `STAGE/FILE` as `artifacts()` names it.

        Raises ArtifactNotFoundError naming what there is.
        """
        if name == RESPONSES:
            return self.store.open(f"{self.id}/{RESPONSES}")
        stage_name, _, file = name.partition("/")
        for stage in self._ledger.stages(self.id):
            if stage.name == stage_name and stage.result is not None and file:
                return self.store.open(f"{stage.result.prefix}/{file}")
        there = ", ".join(artifact.name for artifact in self.artifacts()) or "nothing yet"
        raise ArtifactNotFoundError(f"run {self.id} has no artifact {name!r}; it has {there}")

    def location(self, stage: StageRecord) -> str:
        """Where a finished stage's files lie, for people."""
        if stage.result is None:
            raise StoreError(f"stage {stage.name} has no result yet")
        return self.store.url_of(stage.result.prefix)

    def _artifact(self, stage: str, prefix: str, file: ArtifactInfo) -> Artifact:
        return Artifact(
            name=f"{stage}/{file.name}",
            stage=stage,
            size=file.size,
            sha256=file.sha256,
            url=self.store.url_of(f"{prefix}/{file.name}"),
        )

    def _read(self, name: str) -> bytes:
        with self.open(name) as stream:
            return stream.read()
