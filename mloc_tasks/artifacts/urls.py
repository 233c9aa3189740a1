"""From a URL to the store or the stream behind it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypedDict, Unpack
from urllib.parse import unquote, urlsplit

from mloc_tasks.artifacts.disk import disk_error
from mloc_tasks.artifacts.local import LocalStore
from mloc_tasks.artifacts.store import ArtifactStore
from mloc_tasks.errors import ArtifactNotFoundError, StoreError

if TYPE_CHECKING:
    from mloc_tasks.artifacts.s3 import S3Store


class S3Options(TypedDict, total=False):
    """How to reach an S3-compatible server; what is left out has the default of `S3Settings`."""

    endpoint_url: str | None
    region: str | None
    path_style: bool | None
    concurrency: int
    connect_timeout: float
    read_timeout: float
    attempts: int


def open_store(url: str | os.PathLike[str], **s3: Unpack[S3Options]) -> ArtifactStore:
    """The store at a directory path, a `file:///directory` URL or an `s3://bucket/prefix` URL.

    Nothing is contacted or created until the first use. The keyword arguments matter for `s3://` alone, see
    `S3Settings`; credentials come from where AWS tools look for them (`AWS_ACCESS_KEY_ID`, profiles, roles).
    Raises `StoreError` for any other kind of URL.
    """
    text = os.fspath(url)
    scheme = _scheme_of(text)
    if scheme == "s3":
        return _s3_store(text, s3)
    if scheme in ("", "file"):
        return LocalStore(_local_path(text))
    raise StoreError(
        f"{text}: no artifact store for {scheme}://", hint="use a directory, file:///DIR or s3://BUCKET/PREFIX"
    )


def open_url(url: str | os.PathLike[str], **s3: Unpack[S3Options]) -> BinaryIO:
    """Open one file for reading, streamed: a path, `file://`, `s3://bucket/key`, `http://` or `https://`.

    All are seekable but for HTTP servers without range requests. An interrupted transfer is resumed a few times.
    Raises `ArtifactNotFoundError`, `StoreUnavailableError` when the server does not answer, `StoreError` otherwise;
    reading may raise the last two as well.
    """
    text = os.fspath(url)
    scheme = _scheme_of(text)
    if scheme == "s3":
        bucket_url, _, key = text.partition("://")[2].partition("/")
        return _s3_store(f"s3://{bucket_url}", s3).open_key(key)
    if scheme in ("http", "https"):
        from mloc_tasks.artifacts.http import open_http

        return open_http(text)
    if scheme not in ("", "file"):
        raise StoreError(
            f"{text}: cannot read {scheme}:// URLs", hint="use a path, file://, s3://, http:// or https://"
        )
    path = _local_path(text)
    try:
        return path.open("rb")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ArtifactNotFoundError(f"no file {path}") from error
    except OSError as error:
        raise disk_error(error, path) from error


def _scheme_of(text: str) -> str:
    scheme, separator, _ = text.partition("://")
    return scheme.lower() if separator and scheme.isalnum() else ""


def _local_path(text: str) -> Path:
    if not _scheme_of(text):
        if not text:
            raise StoreError("an empty path")
        return Path(text).expanduser()
    parts = urlsplit(text)
    if parts.netloc not in ("", "localhost"):
        raise StoreError(
            f"{text}: names the machine {parts.netloc!r}", hint="file URLs have three slashes: file:///DIR"
        )
    return Path(unquote(parts.path))


def _s3_store(url: str, options: S3Options) -> S3Store:
    from mloc_tasks.artifacts.s3 import S3Store
    from mloc_tasks.artifacts.s3_connection import S3Settings

    return S3Store(url, S3Settings.from_environment(**options))
