"""Models on web servers: one file each, an archive or a .gguf."""

from __future__ import annotations

import http.client
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

from mloc_tasks.errors import ModelError, ModelUnavailableError
from mloc_tasks.models.remote import Remote, nothing_there, without_secrets

OpenUrl = Callable[[str], BinaryIO]

TIMEOUT_SECONDS = 30.0
_COPY_BYTES = 4 << 20
_TRY_AGAIN_STATUS = {408, 425, 429, 500, 502, 503, 504}


def find_http(url: str, *, field: str, open_url: OpenUrl) -> Remote:
    """The file at `url`. Raises ModelError when there is none, ModelUnavailableError when the server does not answer.

    Its version is what the server says of it (ETag, modification time, length); of a server that says nothing, a
    file that is changed is taken for the same.
    """
    if urlsplit(url).path.endswith("/"):
        raise ModelError(
            f"{field}: {without_secrets(url)} is a folder, which a web server cannot send as one",
            hint="give the address of an archive (.tar.gz, .tar.zst, .tar, .zip) or of a .gguf file",
        )
    version, size = _look(url, field)
    return _HttpFile(url, field=field, version=version, size=size, open_url=open_url)


class _HttpFile(Remote):
    def __init__(self, url: str, *, field: str, version: str, size: int | None, open_url: OpenUrl) -> None:
        super().__init__(url, field=field, version=version, size=size)
        self._open_url = open_url

    def fetch(self, staging: Path) -> Path:
        name = PurePosixPath(unquote(urlsplit(self.address).path)).name.replace("\0", "")
        path = staging / (name if name not in ("", ".", "..") else "download")
        with self._open_url(self.address) as source, path.open("xb") as target:
            shutil.copyfileobj(source, target, _COPY_BYTES)
        return path

    def version_now(self) -> str:
        return _look(self.address, self.field)[0]


def _look(url: str, field: str) -> tuple[str, int | None]:
    """Version and bytes. Asked by GET, whose body stays unread: a signed address is good for this one method."""
    shown = without_secrets(url)
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as response:
            headers = response.headers
    except urllib.error.HTTPError as error:
        if error.code in (404, 410):
            raise nothing_there(field, url) from error
        message = f"{field}: {shown}: {error.code} {error.reason}"
        if error.code in _TRY_AGAIN_STATUS:
            raise ModelUnavailableError(message, hint="the server is busy or broken; try again later") from error
        hint = (
            "the server wants credentials; a signed address or an s3:// one works" if error.code in (401, 403) else ""
        )
        raise ModelError(message, hint=hint) from error
    except (OSError, http.client.HTTPException) as error:
        if isinstance(error, http.client.InvalidURL):
            raise ModelError(f"{field}: {shown} is not an address: {error}") from error
        raise ModelUnavailableError(
            f"{field}: {shown}: {error}", hint="check the address, and that this worker can reach the server"
        ) from error
    except ValueError as error:
        raise ModelError(f"{field}: {shown} is not an address: {error}") from error
    length = headers.get("Content-Length", "")
    size = int(length) if length.isdecimal() else None
    version = " ".join([headers.get("ETag", ""), headers.get("Last-Modified", ""), str(size)])
    return version, size
