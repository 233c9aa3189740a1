"""Files that come into sight all at once: written where nobody looks, then renamed into place."""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from mloc_tasks.artifacts.names import RESERVED
from mloc_tasks.artifacts.store import ArtifactInfo
from mloc_tasks.errors import StoreError

COPY_BYTES = 1 << 20


def hidden_name() -> str:
    """A new file name that no artifact can have."""
    return f"{RESERVED}{uuid.uuid4().hex}"


@contextmanager
def new_file(path: str) -> Iterator[BinaryIO]:
    """A file that replaces `path` when the block ends well, and leaves no trace when it does not."""
    directory = os.path.dirname(path)
    temporary = os.path.join(directory, hidden_name())
    if not os.path.isdir(directory):
        os.makedirs(directory, exist_ok=True)
    try:
        with open(temporary, "xb", buffering=0) as file:
            yield file
        os.replace(temporary, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


@contextmanager
def filled_directory(target: Path) -> Iterator[Path]:
    """A new directory whose content appears in `target` when the block ends well, and nowhere when it does not.

    What `target` already holds stays, except files of the same names. A symbolic link in `target` is never written
    through: one in the place of a directory raises `StoreError`, one in the place of a file is replaced.
    """
    final = os.path.realpath(target)
    exists = os.path.isdir(final)
    # Inside an existing target: it may be a mount point, and rename does not leave a file system.
    staging = os.path.join(final if exists else os.path.dirname(final), hidden_name())
    os.makedirs(staging)
    try:
        yield Path(staging)
        if exists:
            _refuse_conflicts(staging, final)
            _merge(staging, final)
        else:
            os.rename(staging, final)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _refuse_conflicts(staging: str, target: str) -> None:
    for entry in os.scandir(staging):
        there = os.path.join(target, entry.name)
        if not os.path.lexists(there):
            continue
        if entry.is_dir(follow_symlinks=False):
            if os.path.islink(there) or not os.path.isdir(there):
                raise StoreError(f"{there} is in the way of a directory of that name", hint="choose an empty directory")
            _refuse_conflicts(entry.path, there)
        elif os.path.isdir(there) and not os.path.islink(there):
            raise StoreError(f"the directory {there} is in the way of a file", hint="choose an empty directory")


def _merge(staging: str, target: str) -> None:
    for entry in os.scandir(staging):
        there = os.path.join(target, entry.name)
        if entry.is_dir(follow_symlinks=False) and os.path.lexists(there):
            _merge(entry.path, there)
        else:
            os.replace(entry.path, there)


def copy_hashed(source: BinaryIO, target: BinaryIO, name: str) -> ArtifactInfo:
    """Copy what is left of `source`, hashing it on the way."""
    digest, size = hashlib.sha256(), 0
    while chunk := source.read(COPY_BYTES):
        write_all(target, chunk)
        digest.update(chunk)
        size += len(chunk)
    return ArtifactInfo(name, size, digest.hexdigest())


def write_all(target: BinaryIO, data: bytes) -> None:
    """Write every byte: an unbuffered file may take only a part, as when the disk fills up in the middle."""
    view = memoryview(data)
    while view:
        view = view[target.write(view) :]


def verify(found: ArtifactInfo, expected: ArtifactInfo, where: str) -> None:
    """Raise `StoreError` unless size and digest agree."""
    if (found.size, found.sha256) != (expected.size, expected.sha256):
        raise StoreError(
            f"{where} is not what its manifest says: {found.size} bytes, sha256 {found.sha256[:12]}..., "
            f"not {expected.size} bytes, sha256 {expected.sha256[:12]}...",
            hint="the stored file was changed or damaged; run the stage again",
        )
