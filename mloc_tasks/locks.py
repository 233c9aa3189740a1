"""Locks between processes and threads of a machine, on files or folders that may be removed when nobody uses them."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def locked(
    path: Path, *, shared: bool = False, waiting: Callable[[], None] = lambda: None, create: bool = True
) -> Iterator[None]:
    """Hold the lock `path` within the block, together with other `shared` holders or alone.

    `waiting` is called before this blocks. The lock is the kernel's: whoever dies lets go of it. What is not there
    becomes an empty file, or where not `create` raises FileNotFoundError, also when it is removed meanwhile.
    """
    operation = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    descriptor = _acquire(path, operation | fcntl.LOCK_NB, create)
    if descriptor is None:
        waiting()
        descriptor = _acquire(path, operation, create)
    assert descriptor is not None
    try:
        yield
    finally:
        os.close(descriptor)


@contextmanager
def locked_if_free(path: Path, *, create: bool = True) -> Iterator[bool]:
    """Hold the lock `path` alone within the block; gives False at once when others hold it. `create` as in `locked`."""
    descriptor = _acquire(path, fcntl.LOCK_EX | fcntl.LOCK_NB, create)
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None:
            os.close(descriptor)


def remove_lock(path: Path) -> None:
    """Remove a lock file; call it while holding the lock alone. Those who wait for it go on with a new one."""
    with suppress(FileNotFoundError):
        path.unlink()


def _acquire(path: Path, operation: int, create: bool) -> int | None:
    while True:
        # Read-only, so that users who share a cache can lock each other's files.
        descriptor = os.open(path, os.O_RDONLY | (os.O_CREAT if create and not path.is_dir() else 0), 0o644)
        try:
            fcntl.flock(descriptor, operation)
            if _is_still(path, descriptor):
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            return None
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # removed while we waited: a lock on it protects nothing


def _is_still(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False
