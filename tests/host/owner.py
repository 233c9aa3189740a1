"""A process that has a host, for tests of its end: says the host's process id once its task runs, then waits
for the end of its standard input. `python -m tests.host.owner FOLDER fork` forks before that, as a library might.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

from mloc_tasks.cpus import usable_cpus
from mloc_tasks.host.devices import Devices
from mloc_tasks.host.pool import HostKey, HostPool
from tests.plugins.mloc_test_script import CHILDREN, ScriptExecutor


class Began:
    """A reporter that says so on standard output."""

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def progress(self, done: int, total: int | None = None) -> None:
        print(self._pid, flush=True)

    def log(self, message: str, *, level: str = "info") -> None: ...

    def metrics(self, step: int, values: dict[str, float]) -> None: ...


def use(folder: Path) -> None:
    pool = HostPool(Devices(gpus=(), cpus=usable_cpus()), idle_sec=600)
    spec = {"task_type": "script", "folder": str(folder)}
    with pool.host(ScriptExecutor, HostKey.of(ScriptExecutor, {}, gpus=0), room=1, look=_nothing) as held:
        steps = [["start", *CHILDREN], ["progress", 0, 1], ["sleep_for_ever"]]
        task = {"document": {"spec": {**spec, "do": steps}}, "rows": None, "names": {}}
        held.process.run(
            {"type": "task", "out_dir": str(folder), "cache_dir": str(folder), **task},
            Began(held.process.pid),
            _nothing,
            grace_sec=1,
        )


def _nothing() -> None: ...


if __name__ == "__main__":
    threading.Thread(target=use, args=(Path(sys.argv[1]),), daemon=True).start()
    if sys.argv[2:] == ["fork"]:
        sys.stdin.readline()
        if os.fork() == 0:
            signal.pause()
        print("forked", flush=True)
    sys.stdin.read()
