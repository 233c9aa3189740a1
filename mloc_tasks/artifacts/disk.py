"""What the operating system says about a directory, in the words of this project's errors."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mloc_tasks.errors import StoreError, StoreUnavailableError

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT}
# Network file systems and failing disks: the same call may work later, or on another worker.
_TRANSIENT = {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.EHOSTDOWN, errno.EMFILE, errno.ENFILE}
_NO_ACCESS = {errno.EACCES, errno.EPERM, errno.EROFS}


@contextmanager
def disk_errors(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn an `OSError` of the block into `StoreUnavailableError` or `StoreError` that names `path`."""
    try:
        yield
    except OSError as error:
        raise disk_error(error, path) from error


def disk_error(error: OSError, path: str | os.PathLike[str]) -> StoreError:
    """`error`, met while working below `path`, as the exception to raise."""
    where = os.fspath(path)
    if error.errno in _NO_SPACE:
        what = "quota exceeded" if error.errno == errno.EDQUOT else "no space left"
        return StoreUnavailableError(
            f"{what} writing below {where}: {_space_of(where)}",
            hint=f"free space on the disk that holds {where}, or put the store on a larger one",
        )
    if error.errno in _TRANSIENT:
        return StoreUnavailableError(f"{where}: {error}", hint="check the disk or the network mount that holds it")
    if error.errno in _NO_ACCESS:
        return StoreError(f"no access to {where}: {error}", hint="give this process's user the right to write there")
    return StoreError(f"{where}: {error}", hint="check that this path is a directory that can be made and written")


def _space_of(where: str) -> str:
    path = Path(where)
    while not path.exists() and path != path.parent:
        path = path.parent
    try:
        status = os.statvfs(path)
    except OSError:
        return "free space unknown"
    free, total = status.f_bavail * status.f_frsize, status.f_blocks * status.f_frsize
    text = f"{shown_bytes(free)} free of {shown_bytes(total)}"
    if status.f_files and not status.f_favail:
        text += ", no free inodes"
    return text


def shown_bytes(count: float) -> str:
    """`count` bytes for people: `14.2 GiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
