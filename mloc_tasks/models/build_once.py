"""A directory in a shared cache that is built once, whoever asks first, and is there as a whole or not at all."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


def build_once(target: Path, build: Callable[[Path], None]) -> bool:
    """Make sure the directory `target` exists; returns whether this call built it.

    `build` fills a staging directory beside it, which then takes the name `target` in one step. Other processes and
    threads wait for the one that builds. The lock is the kernel's, so a builder that is killed lets go of it; what it
    left in its staging directory is removed by the next.
    """
    if target.is_dir():
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    with _exclusive(target.with_name(f".{target.name}.lock")):
        if target.is_dir():
            return False
        prefix = f".{target.name}.staging-"
        for left_over in target.parent.glob(f"{prefix}*"):  # its builder is gone: we hold the lock
            shutil.rmtree(left_over, ignore_errors=True)
        staging = Path(tempfile.mkdtemp(prefix=prefix, dir=target.parent))
        try:
            build(staging)
            _flush(staging)
            staging.chmod(0o755)
            os.replace(staging, target)
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise
    return True


@contextmanager
def _exclusive(lock: Path) -> Iterator[None]:
    with lock.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _flush(directory: Path) -> None:
    """Put the files on disk before the rename makes them valid, so that a power cut cannot leave empty ones."""
    for path in directory.rglob("*"):
        if path.is_file():
            with path.open("rb") as handle:
                os.fsync(handle.fileno())
