"""The files of a directory that is to be stored: found, checked, hashed."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from mloc_tasks.artifacts.names import MANIFEST_NAME, check_name
from mloc_tasks.errors import StoreError


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A regular file inside the source directory; `is_link` when it was reached through a symbolic link."""

    name: str
    path: str
    size: int
    is_link: bool


def files_of(directory: Path, *, may_hold_manifest: bool = False) -> list[SourceFile]:
    """All files below `directory`, in order of names; `StoreError` at the first one that cannot be an artifact."""
    if not directory.is_dir():
        raise StoreError(f"{directory} is not a directory")
    try:
        files = sorted(_walk(str(directory), "", str(directory)), key=lambda file: file.name)
    except OSError as error:
        raise StoreError(f"cannot read {directory}: {error}") from error
    if not may_hold_manifest and any(file.name == MANIFEST_NAME for file in files):
        raise StoreError(
            f"{directory / MANIFEST_NAME}: the store writes a file of that name itself",
            hint="give the file another name",
        )
    return files


def _walk(directory: str, prefix: str, root: str) -> Iterator[SourceFile]:
    with os.scandir(directory) as entries:
        for entry in entries:
            name = prefix + entry.name
            check_name(name)
            if entry.is_symlink():
                yield _linked_file(entry, name, root)
            elif entry.is_dir():
                yield from _walk(entry.path, name + "/", root)
            elif entry.is_file():
                yield SourceFile(name, entry.path, entry.stat().st_size, False)
            else:
                raise StoreError(f"{entry.path} is a socket, pipe or device; only files can be stored")


def _linked_file(entry: os.DirEntry[str], name: str, root: str) -> SourceFile:
    target = os.path.realpath(entry.path)
    if not target.startswith(os.path.realpath(root).rstrip(os.sep) + os.sep):
        raise StoreError(f"{entry.path} is a symbolic link that leads out of its directory, to {target}")
    try:
        status = os.stat(target)
    except OSError as error:
        raise StoreError(f"{entry.path} is a broken symbolic link to {target}") from error
    if not stat.S_ISREG(status.st_mode):
        raise StoreError(f"{entry.path} is a symbolic link to {target}, which is not a file")
    # The target's own path, so that swapping the link after this check changes nothing.
    return SourceFile(name, target, status.st_size, True)


def open_source(path: Path) -> BinaryIO:
    """A file that is to be stored, unbuffered; `StoreError` when it cannot be read."""
    try:
        return open(path, "rb", buffering=0)
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error}") from error


def sha256_of(path: str | os.PathLike[str]) -> str:
    """Hexadecimal digest of a file's content; raises `OSError`."""
    with open(path, "rb", buffering=0) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
