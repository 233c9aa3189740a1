"""What the attempts of one worker process share: ledger, store, settings, its own name."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from mloc_tasks.artifacts import ArtifactStore, open_store
from mloc_tasks.capabilities import Capabilities
from mloc_tasks.host.devices import my_devices
from mloc_tasks.ledger import Ledger
from mloc_tasks.ledger.connection import connect
from mloc_tasks.scratch import in_use, make_scratch, remove_scratch
from mloc_tasks.settings import Settings, get_settings
from mloc_tasks.worker.hardware import machine_capabilities
from mloc_tasks.worker.life import this_life


@dataclass(frozen=True, slots=True)
class Workplace:
    """One process's connections; made on first use, so that pool children never share their parent's."""

    ledger: Ledger
    store: ArtifactStore
    settings: Settings
    machine: Capabilities

    @contextmanager
    def scratch(self, run_id: str) -> Iterator[Path]:
        """An empty folder for one attempt's files, gone afterwards; on the store's own disk where that is local.

        What a killed process leaves of it goes with `sweep`, and on a machine's own disk with `remove_left`.
        """
        root = self.settings.scratch_dir
        folder = self.store.scratch(run_id) if root is None else make_scratch(root, run_id)
        try:
            with in_use(folder):
                yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def sweep(self, run_id: str) -> None:
        """Remove the scratch folders of a run that is over, as far as this machine can reach them."""
        self.store.sweep(run_id)
        if self.settings.scratch_dir is not None:
            remove_scratch(self.settings.scratch_dir, run_id)


@lru_cache(maxsize=1)
def get_workplace() -> Workplace:
    """This process's workplace."""
    settings = get_settings()
    return Workplace(
        ledger=Ledger(connect(settings, patient=True), settings),
        store=store_of(settings),
        settings=settings,
        machine=my_share(machine_capabilities(settings.worker_tags)),
    )


def my_share(machine: Capabilities) -> Capabilities:
    """What of the machine is this pool child's: of its GPUs, those that no other child owns."""
    mine = len(my_devices().gpus)
    if machine.gpus is None or not mine:
        return machine
    return replace(machine, gpus=replace(machine.gpus, count=min(mine, machine.gpus.count)))


def store_of(settings: Settings) -> ArtifactStore:
    """The artifact store of the settings."""
    return open_store(
        settings.store_url, endpoint_url=settings.s3_endpoint_url or None, path_style=settings.s3_path_style
    )


def holder() -> str:
    """Who holds a claim inside this worker: process, thread, and which of the lives under the worker's name it is."""
    return f"{os.getpid()}:{threading.get_ident()}:{this_life()}"


def holder_is_gone(name: str) -> bool:
    """Whether the process of a holder on this host has ended, so that its claim can be taken over."""
    pid = int(name.partition(":")[0] or 0)
    if pid <= 0:
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
