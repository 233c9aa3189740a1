"""A file on a server as a Python file: buffered, seekable, and resumed where a connection breaks."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, Protocol, cast

from mloc_tasks.errors import StoreError, StoreUnavailableError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

BUFFER_BYTES = 1 << 20
RESUMES = 4  # in a row, without a byte between them
FIRST_PAUSE_SECONDS = 0.1  # doubled each time


class Body(Protocol):
    """What arrives over one connection."""

    def read(self, amount: int, /) -> bytes: ...

    def close(self) -> object: ...


class Opened(NamedTuple):
    """One connection: its body, the whole file's size in bytes (None: unknown), and what changes when the file does."""

    body: Body
    size: int | None
    version: str


class RemoteReader(io.RawIOBase):
    """Reads through connections that `open_at(offset)` opens.

    Args:
        open_at: opens the file at a byte offset; raises the errors of this package.
        first: an open connection at offset 0.
        where: the URL, for messages.
        broken: exceptions of `Body.read` after which the transfer can be resumed.
        resumable: False when the server cannot start anywhere but at 0.
    """

    def __init__(
        self,
        open_at: Callable[[int], Opened],
        first: Opened,
        *,
        where: str,
        broken: tuple[type[Exception], ...],
        resumable: bool = True,
    ) -> None:
        super().__init__()
        self._open_at = open_at
        self._body: Body | None = first.body
        self._size = first.size
        self._version = first.version
        self._where = where
        self._broken = broken
        self._resumable = resumable
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._resumable and self._size is not None

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if not self.seekable() or self._size is None:
            raise io.UnsupportedOperation(f"{self._where}: the server does not send parts of the file")
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        position = base + offset
        if position < 0:
            raise ValueError(f"negative seek position {position}")
        if position != self._position:
            self._drop()
            self._position = position
        return position

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer).cast("B")
        data = self._read_some(len(view))
        view[: len(data)] = data
        return len(data)

    def readall(self) -> bytes:
        chunks = []
        while chunk := self._read_some(BUFFER_BYTES):
            chunks.append(chunk)
        return b"".join(chunks)

    def close(self) -> None:
        self._drop()
        super().close()

    def _read_some(self, amount: int) -> bytes:
        if not amount or (self._size is not None and self._position >= self._size):
            return b""
        failures = 0
        while True:
            try:
                if self._body is None:
                    self._body = self._reopen()
                data = self._body.read(amount)
                if data or self._size is None:
                    self._position += len(data)
                    return data
                problem = "the connection ended early"
            except self._broken as error:
                problem = str(error) or type(error).__name__
            self._drop()
            failures += 1
            if failures > RESUMES or not self._resumable:
                raise StoreUnavailableError(f"{self._where}: reading stopped at byte {self._position}: {problem}")
            time.sleep(FIRST_PAUSE_SECONDS * 2 ** (failures - 1))

    def _reopen(self) -> Body:
        opened = self._open_at(self._position)
        if (opened.version, opened.size) != (self._version, self._size):
            opened.body.close()
            raise StoreError(f"{self._where}: the file was replaced while it was being read", hint="read it again")
        return opened.body

    def _drop(self) -> None:
        body, self._body = self._body, None
        if body is not None:
            body.close()


def buffered(reader: RemoteReader) -> BinaryIO:
    """`reader` behind a buffer, so that reading lines does not cost a call each."""
    return cast(BinaryIO, io.BufferedReader(reader, BUFFER_BYTES))
