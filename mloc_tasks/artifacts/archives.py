"""Directories as one file: `.tar`, `.tar.gz`, `.tar.zst`, `.zip`. What is unpacked is not trusted."""

from __future__ import annotations

import gzip
import importlib
import os
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from mloc_tasks.artifacts.disk import disk_errors
from mloc_tasks.artifacts.source import SourceFile, files_of
from mloc_tasks.artifacts.staging import filled_directory, new_file
from mloc_tasks.artifacts.unpacking import ArchiveError, Unpacking
from mloc_tasks.errors import StoreError

MAX_BYTES = 200 << 30
"""Default bound on what an archive may expand to: above any checkpoint that is shipped as one, below a bomb."""

SUFFIXES = (".tar.gz", ".tgz", ".tar.zst", ".tar", ".zip")
# A header of tar is 512 bytes; names and attributes of pax and GNU come in blocks of their own.
_MAX_HEADER_BYTES = 4 << 20
_DIRECTORY_MODE, _FILE_MODE = 0o755, 0o644


def pack(directory: Path, target: Path) -> Path:
    """Write all files below `directory` into the archive `target`; its suffix says which kind. Returns `target`.

    `target` appears when it is complete. Links and special files are treated as `ArtifactStore.put_dir` does.
    Owners are not recorded. Raises `StoreError` for another suffix, `StoreUnavailableError` for a full disk.
    """
    if not target.name.endswith(SUFFIXES):
        raise StoreError(f"{target}: cannot make such an archive", hint=f"use one of {', '.join(SUFFIXES)}")
    files = files_of(directory, may_hold_manifest=True)
    with disk_errors(target), new_file(os.path.abspath(target)) as file:
        if target.name.endswith(".zip"):
            with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
                for entry in files:
                    archive.write(entry.path, entry.name)
        else:
            with _compressor(file, target.name) as stream, tarfile.open(fileobj=stream, mode="w|") as tar:
                for entry in files:
                    _add(tar, entry)
    return target


def unpack(archive: Path, target: Path, *, max_bytes: int = MAX_BYTES) -> None:
    """Unpack `archive` into the directory `target`; the kind is told from its content, not from its name.

    Nothing appears in `target` unless all of it could be unpacked. `StoreError` is raised for an archive that is
    damaged, encrypted, expands to more than `max_bytes` bytes or a million entries, or has an entry that is absolute,
    leads out of `target` (by ".." or through a link), or is a device, pipe or socket. Links that stay inside are
    kept in tar files and refused in zip files. Owners and special permission bits are dropped.
    """
    with disk_errors(archive), open(archive, "rb") as file:
        kind = _kind_of(file)
        if not kind:
            raise ArchiveError(f"{archive} is not a tar, tar.gz, tar.zst or zip archive")
        with disk_errors(target), filled_directory(target) as staging:
            unpacking = Unpacking(archive, staging, max_bytes)
            try:
                if kind == "zip":
                    _unpack_zip(file, unpacking)
                else:
                    _unpack_tar(file, kind, unpacking)
            except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, gzip.BadGzipFile) as error:
                raise ArchiveError(f"{archive} is damaged: {error}") from error
            unpacking.finish()


def _kind_of(file: BinaryIO) -> str:
    start = file.read(512)
    file.seek(0)
    if start[257:262] == b"ustar":
        return "tar"
    for magic, kind in (
        (b"\x1f\x8b", "gz"),
        (b"\x28\xb5\x2f\xfd", "zst"),
        (b"PK\x03\x04", "zip"),
        (b"PK\x05\x06", "zip"),
    ):
        if start.startswith(magic):
            return kind
    # An empty tar is nothing but zeros, and the oldest format has no magic at all.
    return "tar" if len(start) == 512 and (not any(start) or _is_old_tar(start)) else ""


def _is_old_tar(start: bytes) -> bool:
    try:
        tarfile.TarInfo.frombuf(start, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def _zstandard() -> Any:
    try:
        return importlib.import_module("zstandard")
    except ImportError as error:
        raise StoreError(
            "reading or writing .tar.zst needs the Python package zstandard",
            hint="pip install zstandard, or use .tar.gz",
        ) from error


@contextmanager
def _compressor(file: BinaryIO, name: str) -> Iterator[BinaryIO]:
    if name.endswith(".zst"):
        with _zstandard().ZstdCompressor(threads=-1).stream_writer(file, closefd=False) as stream:
            yield stream
    elif name.endswith("gz"):
        # Weights hardly compress: level 1 is five times as fast as 9 and a percent larger.
        with gzip.GzipFile(fileobj=file, mode="wb", compresslevel=1, filename="", mtime=0) as stream:
            yield cast(BinaryIO, stream)
    else:
        yield file


def _add(tar: tarfile.TarFile, entry: SourceFile) -> None:
    with open(entry.path, "rb") as source:
        status = os.fstat(source.fileno())
        info = tarfile.TarInfo(entry.name)
        info.size, info.mtime = status.st_size, int(status.st_mtime)
        info.mode = _DIRECTORY_MODE if status.st_mode & 0o100 else _FILE_MODE
        tar.addfile(info, source)


class _HeaderBound:
    """Ends the reading of a tar file whose headers ask for more memory than any honest one."""

    def __init__(self, stream: Any, archive: Path) -> None:
        self._stream = stream
        self._archive = archive
        self._left = 0

    def expect(self, count: int) -> None:
        """Allow as much as an entry of `count` bytes and the header after it may take."""
        self._left = count + _MAX_HEADER_BYTES

    def read(self, count: int) -> bytes:
        data: bytes = self._stream.read(count)
        self._left -= len(data)
        if self._left < 0:
            raise ArchiveError(f"{self._archive}: an entry's header is larger than {_MAX_HEADER_BYTES >> 20} MiB")
        return data


def _unpack_tar(file: BinaryIO, kind: str, unpacking: Unpacking) -> None:
    if kind == "gz":
        stream: Any = gzip.GzipFile(fileobj=file, mode="rb")
    elif kind == "zst":
        zstandard = _zstandard()
        stream = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True, closefd=False)
        unpacking.also_damaged = (zstandard.ZstdError,)
    else:
        stream = file
    bound = _HeaderBound(stream, unpacking.archive)
    bound.expect(0)
    with unpacking.damage(), tarfile.open(fileobj=cast(BinaryIO, bound), mode="r|") as tar:
        while (member := tar.next()) is not None:
            bound.expect(member.size)
            tar.members.clear()  # type: ignore[attr-defined]  # else it remembers every entry it has passed
            if member.isdir():
                unpacking.directory(member.name)
            elif member.isreg():
                content = tar.extractfile(member)
                assert content is not None
                unpacking.file(member.name, cast(BinaryIO, content), executable=bool(member.mode & 0o100))
            elif member.issym():
                unpacking.symbolic_link(member.name, member.linkname)
            elif member.islnk():
                unpacking.hard_link(member.name, member.linkname)
            else:
                raise ArchiveError(f"{unpacking.archive}: {member.name!r} is a device, a pipe or of unknown kind")
            bound.expect(0)


def _unpack_zip(file: BinaryIO, unpacking: Unpacking) -> None:
    unpacking.also_damaged = (NotImplementedError, RuntimeError)  # a compression it does not know; a password
    with unpacking.damage(), zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            kind = member.external_attr >> 28  # the top bits of the Unix mode; 0 where it was made elsewhere
            if member.is_dir():
                unpacking.directory(member.filename)
            elif kind not in (0, 0o10):
                raise ArchiveError(f"{unpacking.archive}: {member.filename!r} is a link or a special file")
            else:
                with archive.open(member) as content:
                    executable = bool(member.external_attr >> 16 & 0o100)
                    unpacking.file(member.filename, cast(BinaryIO, content), executable=executable)
