"""Executors that do what a list of steps says, for tests of executor hosts: `do: [["print", "x"], ["exit", 3]]`."""

from __future__ import annotations

import builtins
import ctypes
import errno
import importlib
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, ClassVar

from mloc_tasks import errors
from mloc_tasks.executors import Executor, Task

LOOK_SEC = 0.01
# Children that outlive their parent where nobody ends them. Each says that it is there.
CHILDREN = {
    "plain": "",
    "own session": "import os; os.setsid()",
    "deaf": "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)",
    "grandchild": "import os; here = os.getpid(); os.fork() and os._exit(0); os.setsid()\n"
    "while os.getppid() == here: time.sleep(0.001)",
}
CHILD = "import time; {}\nopen({!r}, 'w').close()\ntime.sleep(1000)"


class ScriptExecutor(Executor):
    """Does its steps one after the other; gives what they found, its process id, and how many tasks came before."""

    name: ClassVar[str] = "script"

    def __init__(self) -> None:
        self.tasks = 0
        self.broken = False

    def run(self, task: Task, out_dir: Path) -> dict[str, Any]:
        before, self.tasks = self.tasks, self.tasks + 1
        found: dict[str, Any] = {}
        for name, *arguments in task["spec"].get("do", ()):
            found[name] = getattr(self, f"do_{name}")(task, *arguments)
        return {"ok": True, "model": "script", "pid": os.getpid(), "before": before, **found}

    def close(self) -> None:
        if path := os.environ.get("CLOSED"):
            Path(path).touch()

    def do_print(self, task: Task, text: str) -> None:
        print(text, end="")

    def do_print_much(self, task: Task, megabytes: int) -> None:
        for _ in range(megabytes):
            sys.stdout.write(("x" * 99 + "\n") * 10_000)

    def do_warn(self, task: Task, text: str) -> None:
        logging.getLogger("script").warning(text)

    def do_log(self, task: Task, message: str) -> None:
        task.report.log(message, level="warning")

    def do_progress(self, task: Task, done: int, total: int) -> None:
        task.report.progress(done, total)

    def do_metrics(self, task: Task, step: int, values: dict[str, float]) -> None:
        import numpy

        task.report.metrics(step, {name: numpy.float32(value) for name, value in values.items()})

    def do_raise(self, task: Task, name: str, message: str) -> None:
        found = getattr(errors, name, None)
        if found is not None:
            raise found(message, hint="do this")
        raise getattr(builtins, name)(message)

    def do_raise_disk_full(self, task: Task) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def do_raise_mute(self, task: Task) -> None:
        raise MuteError

    def do_break(self, task: Task) -> None:
        self.broken = True
        raise errors.RetryableExecutionError("the engine is dead")

    def do_exit(self, task: Task, code: int) -> None:
        sys.exit(code)

    def do_end(self, task: Task, code: int) -> None:
        os._exit(code)

    def do_kill(self, task: Task, name: str) -> None:
        os.kill(os.getpid(), signal.Signals[name])

    def do_segfault(self, task: Task) -> None:
        ctypes.string_at(0)

    def do_start(self, task: Task, *kinds: str) -> None:
        """Start children and wait until all of them are there."""
        folder = Path(task["spec"]["folder"])
        for kind in kinds:
            ready = folder / kind
            subprocess.Popen([sys.executable, "-I", "-S", "-c", CHILD.format(CHILDREN[kind], str(ready))])
            wait_for_file(ready)

    def do_ignore_sigterm(self, task: Task) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    def do_touch(self, task: Task, path: str) -> None:
        Path(path).touch()

    def do_wait_for(self, task: Task, path: str) -> None:
        wait_for_file(Path(path))

    def do_wait_until_cancelled(self, task: Task) -> None:
        task.cancelled.wait()
        raise errors.ExecutionError("cancelled, as asked")

    def do_sleep_for_ever(self, task: Task) -> None:
        while True:
            time.sleep(1000)

    def do_import(self, task: Task, module: str) -> None:
        importlib.import_module(module)

    def do_modules(self, task: Task) -> list[str]:
        return sorted(sys.modules)

    def do_environment(self, task: Task) -> dict[str, str]:
        return dict(os.environ)

    def do_cpus(self, task: Task) -> list[int]:
        return sorted(os.sched_getaffinity(0))

    def do_inputs(self, task: Task) -> int:
        assert task.inputs is not None
        return sum(len(str(row)) for row in task.inputs)

    def do_versions(self, task: Task) -> dict[str, str]:
        import transformers

        import mloc_tasks

        return {
            "transformers": transformers.__version__,
            "python": sys.executable,
            "mloc": str(Path(mloc_tasks.__file__).parent),
        }

    def do_spawn(self, task: Task) -> str:
        """In a process of `multiprocessing`, which imports all anew."""
        import multiprocessing

        with multiprocessing.get_context("spawn").Pool(1) as pool:
            return pool.apply(_package)


class ChorusExecutor(ScriptExecutor):
    """The same, for several tasks at once."""

    name: ClassVar[str] = "chorus"
    concurrent: ClassVar[bool] = True


class OnceExecutor(ScriptExecutor):
    """The same, in a process that is not used again."""

    name: ClassVar[str] = "once"
    reusable: ClassVar[bool] = False


class InnerExecutor(ScriptExecutor):
    """The same, in the worker's own process."""

    name: ClassVar[str] = "inner"
    light: ClassVar[bool] = True


class MuteError(Exception):
    """Cannot say what it is."""

    def __str__(self) -> str:
        raise RuntimeError


def wait_for_file(path: Path) -> None:
    while not path.exists():
        time.sleep(LOOK_SEC)


def _package() -> str:
    import mloc_tasks

    return str(Path(mloc_tasks.__file__).parent)
