"""Writing an archive's entries into a directory that none of them can leave."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from mloc_tasks.artifacts.names import check_name
from mloc_tasks.artifacts.staging import COPY_BYTES, write_all
from mloc_tasks.errors import StoreError

MAX_ENTRIES = 1_000_000


class ArchiveError(StoreError):
    """An archive is damaged, too large, or has an entry that must not be unpacked."""


class Unpacking:
    """One archive on its way into `root`, a new directory that nobody else writes.

    Symbolic links are made last, so no entry is ever written through one, and each is then resolved: one that leads
    out of `root`, directly or by way of another, fails the whole archive.
    """

    def __init__(self, archive: Path, root: Path, max_bytes: int) -> None:
        self.archive = archive
        self.also_damaged: tuple[type[Exception], ...] = ()
        self._root = os.path.realpath(root)
        self._max_bytes = max_bytes
        self._bytes = 0
        self._entries = 0
        self._links: dict[str, str] = {}

    @contextmanager
    def damage(self) -> Iterator[None]:
        """Exceptions of the archive's own format in the block mean that it is damaged."""
        try:
            yield
        except self.also_damaged as error:
            raise ArchiveError(f"{self.archive} cannot be unpacked: {error}") from error

    def directory(self, name: str) -> None:
        if name.strip("./"):
            os.makedirs(self._place(name), exist_ok=True)
        elif name.startswith("/"):
            raise ArchiveError(f"{self.archive}: entry {name!r} is absolute")

    def file(self, name: str, content: BinaryIO, *, executable: bool) -> None:
        path = self._new(name)
        mode = 0o777 if executable else 0o666  # less the umask
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with open(descriptor, "wb", buffering=0) as target:
            while chunk := content.read(COPY_BYTES):
                self._bytes += len(chunk)
                if self._bytes > self._max_bytes:
                    raise ArchiveError(
                        f"{self.archive} expands to more than {self._max_bytes} bytes",
                        hint="if it is to be trusted, unpack it by hand and give the directory instead",
                    )
                write_all(target, chunk)

    def symbolic_link(self, name: str, target: str) -> None:
        path = self._new(name)
        if os.path.isabs(target) or "\0" in target:
            raise ArchiveError(f"{self.archive}: {name!r} is a link to the absolute {target!r}")
        self._links[path] = target

    def hard_link(self, name: str, target: str) -> None:
        path, existing = self._new(name), self._place(target)
        if not os.path.isfile(existing):
            raise ArchiveError(f"{self.archive}: {name!r} is a link to {target!r}, which does not come before it")
        os.link(existing, path)

    def finish(self) -> None:
        """Make the symbolic links, and see that none of them leads out."""
        for path, target in self._links.items():
            if os.path.lexists(path):
                raise ArchiveError(
                    f"{self.archive}: {os.path.relpath(path, self._root)!r} is both a link and a directory"
                )
            os.symlink(target, path)
        for path, target in self._links.items():
            real = os.path.realpath(path)
            inside = real == self._root or real.startswith(self._root + os.sep)
            # A link to nothing could come to lead out once `root` is merged into a directory that has more.
            if not inside or not os.path.exists(real):
                where = "out of it" if not inside else "nowhere"
                raise ArchiveError(f"{self.archive}: the link {os.path.basename(path)!r} to {target!r} leads {where}")

    def _new(self, name: str) -> str:
        path = self._place(name)
        if path in self._links or os.path.lexists(path):
            raise ArchiveError(f"{self.archive} has two entries {name!r}")
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return path

    def _place(self, name: str) -> str:
        self._entries += 1
        if self._entries > MAX_ENTRIES:
            raise ArchiveError(f"{self.archive} has more than {MAX_ENTRIES} entries")
        plain = name.removeprefix("./").removesuffix("/")  # as `tar -C directory .` writes them
        try:
            check_name(plain)
        except StoreError as error:
            raise ArchiveError(f"{self.archive}: {error}") from error
        return os.path.join(self._root, plain)
