"""Reading a file from a web server."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from typing import BinaryIO

from mloc_tasks.artifacts.remote import Opened, RemoteReader, buffered
from mloc_tasks.errors import ArtifactNotFoundError, StoreError, StoreUnavailableError

TIMEOUT_SECONDS = 30.0
"""For connecting, and for every single read."""

_TRY_AGAIN_STATUS = {408, 425, 429, 500, 502, 503, 504}


def open_http(url: str, *, timeout: float = TIMEOUT_SECONDS) -> BinaryIO:
    """Open an `http://` or `https://` URL for reading; errors as `open_url`."""
    first, resumable = _request(url, 0, timeout)
    reader = RemoteReader(
        lambda offset: _request(url, offset, timeout)[0],
        first,
        where=url,
        broken=(OSError, http.client.HTTPException),
        resumable=resumable,
    )
    return buffered(reader)


def _request(url: str, offset: int, timeout: float) -> tuple[Opened, bool]:
    """The file from `offset` on, and whether the server can start at an offset."""
    try:
        request = urllib.request.Request(url, headers={"Range": f"bytes={offset}-"} if offset else {})
        response = urllib.request.urlopen(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        raise _status_error(url, error.code, error.reason) from error
    except (OSError, http.client.HTTPException) as error:
        raise StoreUnavailableError(f"{url}: {error}", hint="check the address and the network") from error
    except ValueError as error:
        raise StoreError(f"{url}: {error}") from error
    headers = response.headers
    if offset and response.status != 206:
        response.close()
        raise StoreUnavailableError(f"{url}: the server ignored the request to go on at byte {offset}")
    length = headers.get("Content-Length")
    size = None if length is None else int(length) + offset
    version = headers.get("ETag") or headers.get("Last-Modified") or ""
    return Opened(response, size, version), headers.get("Accept-Ranges", "").lower() == "bytes" and size is not None


def _status_error(url: str, status: int, reason: str) -> StoreError:
    if status in (404, 410):
        return ArtifactNotFoundError(f"{url}: {status} {reason}")
    if status in _TRY_AGAIN_STATUS:
        return StoreUnavailableError(f"{url}: {status} {reason}")
    return StoreError(f"{url}: {status} {reason}")
