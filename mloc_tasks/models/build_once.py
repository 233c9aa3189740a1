"""A directory in a shared cache that is built once, whoever asks first, and is there as a whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from mloc_tasks.locks import locked


def build_once(target: Path, build: Callable[[Path], None]) -> bool:
    """Make sure the directory `target` exists; returns whether this call built it.

    `build` fills a staging directory beside it, which then takes the name `target` in one step. Other processes and
    threads wait for the one that builds. The lock is the kernel's, so a builder that is killed lets go of it; what it
    left in its staging directory is removed by the next.
    """
    if target.is_dir():
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    with locked(lock_of(target)):
        if target.is_dir():
            return False
        remove_left_overs(target)
        staging = Path(tempfile.mkdtemp(prefix=_staging_prefix(target), dir=target.parent))
        try:
            build(staging)
            _flush(staging)
            staging.chmod(0o755)
            os.replace(staging, target)
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise
    return True


def lock_of(target: Path) -> Path:
    """The lock file that whoever builds `target` holds alone."""
    return target.with_name(f".{target.name}.lock")


def remove_left_overs(target: Path) -> None:
    """Remove what builders of `target` that were killed left; call it while holding its lock alone."""
    for left_over in target.parent.glob(f"{_staging_prefix(target)}*"):
        shutil.rmtree(left_over, ignore_errors=True)


def _staging_prefix(target: Path) -> str:
    return f".{target.name}.staging-"


def _flush(directory: Path) -> None:
    """Put the files on disk before the rename makes them valid, so that a power cut cannot leave empty ones."""
    for path in directory.rglob("*"):
        if path.is_file():
            with path.open("rb") as handle:
                os.fsync(handle.fileno())
