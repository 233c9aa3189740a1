"""Which Python an executor's host runs under: vLLM, TRL and the newest Transformers often cannot share one."""

from __future__ import annotations

import os
import re
import shutil
import sys

from mloc_tasks.errors import ConfigError
from mloc_tasks.executors.base import Executor


def variable(family: str) -> str:
    """The environment variable that names a family's interpreter: `MLOC_PYTHON_VLLM` for "vllm"."""
    return "MLOC_PYTHON_" + re.sub(r"[^A-Z0-9]", "_", family.upper())


def interpreter(executor: type[Executor]) -> str:
    """Path of the executor's interpreter; by default this process's. Raises `ConfigError` where there is none."""
    name = variable(executor.family or executor.name)
    wanted = os.environ.get(name, "").strip()
    if not wanted:
        return sys.executable
    found = shutil.which(os.path.expanduser(wanted))
    if found is None:
        raise ConfigError(
            f"{name}={wanted}: no such Python on this worker", hint="name the python of a virtual environment's bin"
        )
    return found
