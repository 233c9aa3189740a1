"""Outputs sent to a web server: `output.destination` of type http.

`POST`, the default, sends each file as a form, and last the result, so that who sees it finds its files there:

    POST URL/RUN/files   multipart/form-data: `stage`, `name` (the file's path among the outputs), `file`
    POST URL             {"task_id": RUN, "stage": STAGE, "result": what responses.json says}

`PUT` suits servers that keep files by path: `PUT URL/RUN/STAGE/NAME` for each file, responses.json last.

A directory of which there is an archive goes as that archive.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, BinaryIO, cast
from urllib.parse import quote, urlsplit, urlunsplit

from mloc_tasks.data.items import RESPONSES
from mloc_tasks.errors import ExecutionError, StoreUnavailableError
from mloc_tasks.models.remote import without_secrets
from mloc_tasks.outputs import ARCHIVE_SUFFIX
from mloc_tasks.spec.model.output import Destination

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse, PoolManager

TIMEOUT_SEC = 60.0
"""Without an answer, or without taking the next bytes, where the destination does not say."""
TRIES = 5
BACKOFF_SEC = 1.0  # doubled from try to try
_TRY_AGAIN_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
_SEND_BYTES = 1 << 20
_SHOWN_CHARACTERS = 200


def send(out_dir: Path, destination: Destination, *, run_id: str, stage: str) -> None:
    """Send what `out_dir` holds to the destination's address.

    Raises StoreUnavailableError when the server does not take it after `TRIES` tries, ExecutionError when it refuses.
    """
    server = _Server(destination)
    names = sorted(_sent(out_dir), key=lambda name: (name == RESPONSES, name))
    for name in names:
        if destination.method == "PUT":
            with (out_dir / name).open("rb") as file:
                server.send(_below(server.url, run_id, stage, *name.split("/")), _Body([file]), _type_of(name))
        elif name != RESPONSES:
            with (out_dir / name).open("rb") as file:
                body, content_type = _form({"stage": stage, "name": name}, file, name)
                server.send(_below(server.url, run_id, "files"), body, content_type)
    if destination.method == "POST":
        result = {"task_id": run_id, "stage": stage, "result": json.loads((out_dir / RESPONSES).read_bytes())}
        server.send(server.url, _Body([io.BytesIO(json.dumps(result).encode())]), "application/json")


def _sent(out_dir: Path) -> Iterator[str]:
    names = [path.relative_to(out_dir).as_posix() for path in out_dir.rglob("*") if path.is_file()]
    archived = tuple(f"{name.removesuffix(ARCHIVE_SUFFIX)}/" for name in names if name.endswith(ARCHIVE_SUFFIX))
    return (name for name in names if not name.startswith(archived))


class _Server:
    """Where a destination's requests go, each tried a few times."""

    def __init__(self, destination: Destination) -> None:
        assert destination.url is not None  # checked when the spec was read
        self.url = destination.url
        self._method = destination.method
        self._headers = destination.headers
        self._pool = _pool(destination.timeout_sec or TIMEOUT_SEC)

    def send(self, url: str, body: _Body, content_type: str) -> None:
        from urllib3.exceptions import HTTPError, MaxRetryError, TimeoutError

        shown = f"output.destination: {self._method} {without_secrets(url)}"
        headers = {**self._headers, "Content-Type": content_type, "Content-Length": str(body.size)}
        try:
            answer = self._pool.request(
                self._method, url, body=cast("IO[bytes]", body), headers=headers, redirect=False
            )
        except (MaxRetryError, TimeoutError) as error:
            why = error.reason if isinstance(error, MaxRetryError) and error.reason is not None else error
            raise StoreUnavailableError(
                f"{shown}: {why}", hint="check the address, and that the server runs"
            ) from error
        except (HTTPError, ValueError) as error:
            raise ExecutionError(f"{shown}: {error}", hint="check the address and the headers") from error
        if not 200 <= answer.status < 300:
            raise _refusal(answer, shown)


def _pool(timeout_sec: float) -> PoolManager:
    from urllib3 import PoolManager, Retry, Timeout

    retries = Retry(
        total=TRIES - 1,
        redirect=False,
        allowed_methods=None,
        status_forcelist=_TRY_AGAIN_STATUS,
        backoff_factor=BACKOFF_SEC,
        raise_on_status=False,
        respect_retry_after_header=False,  # which has no bound
    )
    return PoolManager(retries=retries, timeout=Timeout(connect=timeout_sec, read=timeout_sec), blocksize=_SEND_BYTES)


def _refusal(answer: BaseHTTPResponse, shown: str) -> Exception:
    said = answer.data.decode(errors="replace").strip()[:_SHOWN_CHARACTERS]
    message = f"{shown}: {answer.status} {answer.reason or ''}".rstrip() + (f": {said}" if said else "")
    if answer.status in _TRY_AGAIN_STATUS:
        return StoreUnavailableError(message, hint="the server is busy or broken; try again later")
    if answer.status in (401, 403):
        return ExecutionError(message, hint="give it credentials: output.destination.headers")
    if 300 <= answer.status < 400:
        where = without_secrets(answer.headers.get("Location", "another address"))
        return ExecutionError(message, hint=f"it has moved to {where}; write that address")
    return ExecutionError(message, hint="the server has to take what the page on training, Results and artifacts, says")


def _below(url: str, *steps: str) -> str:
    """An address below another one; a query stays behind it."""
    parts = urlsplit(url)
    path = "/".join([parts.path.rstrip("/"), *(quote(step, safe="") for step in steps)])
    return urlunsplit((parts.scheme, parts.netloc, path, parts.query, ""))


def _type_of(name: str) -> str:
    return "application/json" if name.endswith(".json") else "application/octet-stream"


def _form(values: Mapping[str, str], file: BinaryIO, name: str) -> tuple[_Body, str]:
    """A multipart form of some values and one file, and its content type."""
    from urllib3.fields import RequestField
    from urllib3.filepost import choose_boundary

    boundary = choose_boundary()
    before = b""
    for key, value in values.items():
        field = RequestField(key, value)
        field.make_multipart()
        before += f"--{boundary}\r\n{field.render_headers()}{value}\r\n".encode()
    field = RequestField("file", "", filename=name)
    field.make_multipart(content_type=_type_of(name))
    before += f"--{boundary}\r\n{field.render_headers()}".encode()
    after = f"\r\n--{boundary}--\r\n".encode()
    return _Body([io.BytesIO(before), file, io.BytesIO(after)]), f"multipart/form-data; boundary={boundary}"


class _Body:
    """Several streams read as one, which can be sent again from its beginning."""

    def __init__(self, parts: list[BinaryIO]) -> None:
        self._parts = parts
        self.size = sum(part.seek(0, io.SEEK_END) for part in parts)
        self.seek(0)

    def tell(self) -> int:
        return sum(part.tell() for part in self._parts)

    def seek(self, position: int) -> None:
        for part in self._parts:
            size = part.seek(0, io.SEEK_END)
            part.seek(min(position, size))
            position = max(position - size, 0)

    def read(self, size: int = -1) -> bytes:
        for part in self._parts:
            if data := part.read(size):
                return data
        return b""
