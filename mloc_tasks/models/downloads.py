"""The cache of what was fetched: each thing once for all processes of a machine, as a whole or not at all, bounded.

<cache>/downloads/<key>/           the content, and entry.json that says what it is; its mtime is its last use
<cache>/downloads/.<key>.lock      held alone by whoever builds or removes the entry, shared by whoever uses it
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mloc_tasks.artifacts import unpack
from mloc_tasks.artifacts.disk import disk_errors, shown_bytes
from mloc_tasks.artifacts.unpacking import ArchiveError
from mloc_tasks.errors import ModelError, ModelUnavailableError, StoreUnavailableError
from mloc_tasks.locks import locked, locked_if_free, remove_lock
from mloc_tasks.models.build_once import build_once, lock_of, remove_left_overs
from mloc_tasks.models.contents import hint_for, innermost, is_gguf
from mloc_tasks.models.fetch_progress import fetch_progress
from mloc_tasks.models.remote import Remote, model_errors

Log = Callable[..., None]

FORMAT = 1
"""Part of the key: raise it when entries are laid out in another way."""
DOWNLOADS = "downloads"
ENTRY = "entry.json"
_UNPACKED = "unpacked"
_FETCHED = "fetched"
_KEY_LENGTH = 32
_ROOM_HINT = "free space on that disk, or put the cache on a larger one with MLOC_CACHE_DIR"
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


class Downloads:
    """The download cache below `cache_dir`.

    Args:
        max_bytes: entries that nobody uses are removed, the least recently used first, where all together have more.
            What is in use stays, so the cache is larger while stages at work need more at once.
        log: told what is fetched and removed.
        fetching: called before something is fetched.
    """

    def __init__(
        self, cache_dir: Path, *, max_bytes: int, log: Log, fetching: Callable[[], None] = lambda: None
    ) -> None:
        self._root = cache_dir / DOWNLOADS
        self._max_bytes = max_bytes
        self._log = log
        self._fetching = fetching

    @contextmanager
    def hold(self, remote: Remote) -> Iterator[Path]:
        """The local copy of `remote`, fetched now if it is not here: a directory or a .gguf file.

        An archive is unpacked. It stays where it is within the block, whatever else is fetched meanwhile.
        Raises ModelError when it is neither of these or damaged, ModelUnavailableError (retryable) when the server
        does not answer, the content changes while it is fetched, or the disk is full.
        """
        entry = self._root / _key_of(remote)
        try:
            self._root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ModelError(
                f"the model cache {self._root} cannot be written: {error}", hint="MLOC_CACHE_DIR chooses another"
            ) from error
        while True:
            with locked(lock_of(entry), shared=True, waiting=lambda: self._say_waiting(remote)):
                if (record := _record_of(entry)) is not None:
                    _note_use(entry)
                    try:
                        yield entry / record["path"]
                    finally:
                        _note_use(entry)
                    return
            if entry.is_dir():
                _remove_damaged(entry)
            self._fetch(remote, entry)

    def trim(self, *, room: int = 0) -> None:
        """Remove entries that nobody uses until `room` more bytes fit, and what killed processes left."""
        entries = _entries(self._root)
        total = sum(size for _, size, _ in entries)
        for _, size, entry in entries:
            if total + room <= self._max_bytes and shutil.disk_usage(self._root).free >= room:
                break
            if _remove(entry):
                self._log(f"removed {entry.name} ({shown_bytes(size)}) from the model cache {self._root}")
                total -= size
        for lock in self._root.glob(".*.lock"):
            _remove_left_overs(lock)

    def _fetch(self, remote: Remote, entry: Path) -> None:
        self._require_room(remote)
        started = time.monotonic()
        with model_errors(remote.field, remote.address):
            try:
                with disk_errors(self._root):
                    built = build_once(entry, lambda staging: self._build(remote, staging))
            except StoreUnavailableError as error:
                if not (isinstance(error.__cause__, OSError) and error.__cause__.errno in _NO_SPACE):
                    raise
                self.trim(room=self._max_bytes)  # for the next attempt
                message = f"{remote.field}: fetching {remote.shown}: {error}"
                raise ModelUnavailableError(message, hint=_ROOM_HINT) from error
        if built:
            self._log(f"fetched {remote.shown} in {time.monotonic() - started:.1f} s; it is kept in {entry}")
            with locked(lock_of(entry), shared=True):  # the newest stays, however small the bound is
                self.trim()

    def _build(self, remote: Remote, staging: Path) -> None:
        size = "" if remote.size is None else f" ({shown_bytes(remote.size)})"
        self._fetching()
        self._log(f"fetching {remote.shown}{size}")
        fetched = staging / _FETCHED
        fetched.mkdir()
        with fetch_progress(fetched, remote.shown, total=remote.size, log=self._log):
            path = remote.fetch(fetched)
        if remote.version_now() != remote.version:
            raise ModelUnavailableError(f"{remote.field}: {remote.shown} was changed while it was being fetched")
        path = self._settled(path, remote, staging)
        sizes = [each.lstat().st_size for each in staging.rglob("*") if each.is_file()]
        record = {"address": remote.shown, "path": path.relative_to(staging).as_posix(), "size": sum(sizes)}
        (staging / ENTRY).write_text(json.dumps(record), encoding="utf-8")

    def _settled(self, path: Path, remote: Remote, staging: Path) -> Path:
        """The directory or GGUF file that `path` comes to: an archive is unpacked, and gone if it was fetched."""
        if path.is_dir():
            return innermost(path)
        if is_gguf(path):
            return path.rename(path.with_suffix(".gguf"))
        self._log(f"unpacking {remote.shown}")
        try:
            unpack(path, staging / _UNPACKED)
        except ArchiveError as error:
            text = str(error).replace(str(path), remote.shown)
            raise ModelError(f"{remote.field}: {text}", hint=error.hint or hint_for(path)) from error
        if path.is_relative_to(staging):
            path.unlink()
        return innermost(staging / _UNPACKED)

    def _require_room(self, remote: Remote) -> None:
        if remote.size is None:
            return
        self.trim(room=remote.size)
        free = shutil.disk_usage(self._root).free
        if free < remote.size:
            raise ModelUnavailableError(
                f"{remote.field}: {remote.shown} needs {shown_bytes(remote.size)}, and the disk that holds "
                f"{self._root} has {shown_bytes(free)} free",
                hint=_ROOM_HINT,
            )

    def _say_waiting(self, remote: Remote) -> None:
        self._log(f"waiting for another process of this machine that is fetching {remote.shown}")


def address_of(path: str | os.PathLike[str]) -> str:
    """The address that a path in a download cache was fetched from; any other path as it is."""
    for parent in Path(path).parents:
        if parent.parent.name == DOWNLOADS and (record := _record_of(parent)) is not None:
            return str(record["address"])
    return os.fspath(path)


def _key_of(remote: Remote) -> str:
    return hashlib.sha256(json.dumps([FORMAT, remote.address, remote.version]).encode()).hexdigest()[:_KEY_LENGTH]


def _record_of(entry: Path) -> dict[str, Any] | None:
    try:
        record: dict[str, Any] = json.loads((entry / ENTRY).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return record


def _note_use(entry: Path) -> None:
    with suppress(OSError):  # another user's entry
        os.utime(entry / ENTRY)


def _entries(root: Path) -> list[tuple[int, int, Path]]:
    """(last use, bytes, directory) of all complete entries, the least recently used first."""
    found = []
    for record in root.glob(f"*/{ENTRY}"):
        with suppress(OSError, ValueError, KeyError):  # removed by another process meanwhile
            size = int(json.loads(record.read_text(encoding="utf-8"))["size"])
            found.append((record.stat().st_mtime_ns, size, record.parent))
    return sorted(found)


def _remove(entry: Path) -> bool:
    """Remove an entry unless it is in use; says whether it did."""
    with locked_if_free(lock := lock_of(entry)) as free:
        if not free or not entry.is_dir():
            return False
        # One rename takes it out of sight; were we killed now, it would count as left by a builder.
        remove_left_overs(entry)
        doomed = entry.with_name(f".{entry.name}.staging-removed")
        try:
            os.rename(entry, doomed)
        except OSError:
            return False  # another user's
        shutil.rmtree(doomed, ignore_errors=True)
        remove_lock(lock)
    return True


def _remove_damaged(entry: Path) -> None:
    """Remove an entry that somebody took its record from: it would neither be used nor be made anew."""
    with locked(lock_of(entry)):
        if entry.is_dir() and _record_of(entry) is None:
            try:
                shutil.rmtree(entry)
            except OSError as error:
                raise ModelError(f"the model cache has a damaged entry: {error}", hint=f"remove {entry}") from error


def _remove_left_overs(lock: Path) -> None:
    """Remove what a killed process left of an entry that there is not, and its lock."""
    entry = lock.with_name(lock.name[1 : -len(".lock")])
    if entry.exists():
        return
    with locked_if_free(lock) as free:
        if free and not entry.exists():
            remove_left_overs(entry)
            remove_lock(lock)
