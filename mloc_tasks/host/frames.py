"""What an executor host and its owner say to each other: JSON objects, each after its length in bytes.

To the host: `task` (one attempt), `cancel` (end that attempt), `stop` (end when idle).
To the owner: `ready` or `failed` (after the start), then for each task any number of `progress`, `log` and `metrics`,
and at last `result` or `error`. Frames about a task carry its `id`.
"""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
from typing import Any

Frame = dict[str, Any]

_LENGTH = struct.Struct(">Q")


class Wire:
    """One end of the socketpair. Sending is safe from any thread, receiving belongs to one."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._reader = connection.makefile("rb")
        self._sending = threading.Lock()

    def send(self, frame: Frame) -> None:
        """Send a frame. Raises OSError when the other end is gone."""
        body = json.dumps(frame, ensure_ascii=False, default=str).encode("utf-8", "replace")
        with self._sending:
            self._connection.sendall(_LENGTH.pack(len(body)) + body)

    def receive(self) -> Frame | None:
        """The next frame; None when the other end is gone."""
        try:
            head = self._reader.read(_LENGTH.size)
            if len(head) < _LENGTH.size:
                return None
            (length,) = _LENGTH.unpack(head)
            body = self._reader.read(length)
        except OSError:
            return None
        if len(body) < length:
            return None
        frame: Frame = json.loads(body)
        return frame

    def stop_receiving(self) -> None:
        """End this side's `receive`; the other end sees nothing of it."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RD)

    def close(self) -> None:
        """Let the other end see the end. Closing twice is harmless."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._connection.close()
