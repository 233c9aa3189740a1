"""Reaching an S3-compatible server: settings, clients that give up in bounded time, and errors in our own words."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import boto3
import botocore.exceptions as boto_errors
import s3transfer.exceptions as transfer_errors
from botocore.config import Config
from s3transfer.manager import TransferConfig, TransferManager

from mloc_tasks.errors import ArtifactNotFoundError, StoreError, StoreUnavailableError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

# Files above this travel in parts of this size, several at once.
PART_BYTES = 16 << 20
_CREDENTIALS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE")


@dataclass(frozen=True, slots=True)
class S3Settings:
    """How to reach a server.

    Attributes:
        endpoint_url: of MinIO, SeaweedFS, Ceph and others; None is AWS.
        region: what requests are signed for.
        path_style: `host/bucket/key` instead of `bucket.host/key`; None: when there is an endpoint_url.
        concurrency: requests under way at once, for each process.
        connect_timeout, read_timeout: seconds; the latter without a byte from the server, so it does not limit the
            length of a transfer. A server that takes no more data (a full one may) is given up after it.
        attempts: how often one request is tried at most. A dead server costs up to
            attempts * (connect_timeout + read_timeout) seconds, and some seconds of backoff.
    """

    endpoint_url: str | None = None
    region: str = "us-east-1"
    path_style: bool | None = None
    concurrency: int = 16
    connect_timeout: float = 5.0
    read_timeout: float = 30.0
    attempts: int = 3

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ, **options: Any) -> S3Settings:
        """`options`, and for those not given the usual variables: S3_ENDPOINT_URL, AWS_ENDPOINT_URL, AWS_REGION, ..."""
        given = {name: value for name, value in options.items() if value is not None}
        endpoint_variables = ("S3_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
        for name, variables in {
            "endpoint_url": endpoint_variables,
            "region": ("AWS_REGION", "AWS_DEFAULT_REGION"),
        }.items():
            value = next((environ[variable] for variable in variables if environ.get(variable)), None)
            if value is not None:
                given.setdefault(name, value)
        return cls(**given)


@dataclass(frozen=True, slots=True)
class Connection:
    """A client, and the manager that moves files through it in parallel. Both may be used by several threads."""

    client: S3Client
    transfers: TransferManager


def connect(settings: S3Settings) -> Connection:
    """The connection of this process for these settings and the credentials of the environment.

    Shared, because a client takes 50 ms to make and holds the open sockets. Nothing is contacted.
    """
    credentials = tuple(os.environ.get(name) for name in _CREDENTIALS)
    return _connection(settings, credentials, os.getpid())


@lru_cache(maxsize=16)
def _connection(settings: S3Settings, credentials: tuple[str | None, ...], pid: int) -> Connection:
    del credentials, pid  # part of the key: sockets and threads do not survive a fork
    path_style = settings.path_style if settings.path_style is not None else settings.endpoint_url is not None
    config = Config(
        signature_version="s3v4",
        s3={"addressing_style": "path" if path_style else "auto"},
        # "when_supported", the default, makes servers that are not AWS refuse uploads over TLS.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        connect_timeout=settings.connect_timeout,
        read_timeout=settings.read_timeout,
        retries={"mode": "standard", "total_max_attempts": settings.attempts},
        max_pool_connections=settings.concurrency + 8,
        tcp_keepalive=True,
    )
    try:
        client = boto3.session.Session().client(
            "s3", region_name=settings.region, endpoint_url=settings.endpoint_url, config=config
        )
    except (boto_errors.BotoCoreError, ValueError) as error:
        raise StoreError(f"cannot set up an S3 client for {settings.endpoint_url or 'AWS'}: {error}") from error
    client.meta.events.register("before-call.s3.DeleteObjects", add_content_md5)
    transfer = TransferConfig(
        multipart_threshold=PART_BYTES,
        multipart_chunksize=PART_BYTES,
        max_request_concurrency=settings.concurrency,
        io_chunksize=1 << 20,
    )
    return Connection(client, TransferManager(client, transfer))


def add_content_md5(params: dict[str, Any], **_: Any) -> None:
    """Event handler: a batch deletion needs a checksum, and servers older than 2025 know only this one."""
    body = params["body"] if isinstance(params["body"], bytes) else params["body"].encode()
    digest = hashlib.md5(body, usedforsecurity=False).digest()
    params["headers"]["Content-MD5"] = base64.b64encode(digest).decode()


STREAM_ERRORS: tuple[type[Exception], ...] = (boto_errors.HTTPClientError, boto_errors.IncompleteReadError, OSError)
"""What reading a response's body raises when the connection breaks."""

_NOT_FOUND = {"NoSuchKey", "404", "NotFound"}
_NO_ACCESS = {"AccessDenied", "403", "Forbidden", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken"}
_FULL = {"XMinioStorageFull", "QuotaExceeded", "InsufficientStorage"}
_TRY_AGAIN = {"SlowDown", "Throttling", "RequestTimeout", "TooManyRequests", "InternalError", "ServiceUnavailable"}


@contextmanager
def s3_errors(where: str) -> Iterator[None]:
    """Turn what boto3 raises in the block into the errors of this package; `where` is the URL it was about.

    Goes inside of `disk_errors`: some exceptions of boto3 are an `OSError` too.
    """
    try:
        yield
    except boto_errors.ClientError as error:
        raise _refusal(error, where) from error
    except (boto_errors.NoCredentialsError, boto_errors.PartialCredentialsError, boto_errors.ProfileNotFound) as error:
        raise StoreError(f"{where}: {error}", hint="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY") from error
    except (
        boto_errors.ConnectionError,  # refused, no such host, connect timeout
        boto_errors.HTTPClientError,  # read timeout, broken connection
        boto_errors.IncompleteReadError,
        transfer_errors.RetriesExceededError,
    ) as error:
        cause = error.last_exception if isinstance(error, transfer_errors.RetriesExceededError) else error
        raise StoreUnavailableError(
            f"{where}: the store does not answer: {cause}",
            hint="check that the S3 server runs, has space left, and that the endpoint URL is right",
        ) from error
    except (boto_errors.BotoCoreError, transfer_errors.S3ValidationError) as error:
        raise StoreError(f"{where}: {error}") from error


def code_of(error: boto_errors.ClientError) -> str:
    """S3's word for what went wrong, or the HTTP status where the answer had no body (HEAD)."""
    return str(error.response.get("Error", {}).get("Code", ""))


def is_missing(error: boto_errors.ClientError) -> bool:
    """Whether the object does not exist (rather than its bucket)."""
    return code_of(error) in _NOT_FOUND


def _refusal(error: boto_errors.ClientError, where: str) -> StoreError:
    code = code_of(error)
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    message = error.response.get("Error", {}).get("Message") or ""
    text = f"{where}: {code} {message}".rstrip()
    if code in _NOT_FOUND:
        return ArtifactNotFoundError(f"{where}: no such object")
    if code == "NoSuchBucket":
        return StoreError(f"{where}: the bucket does not exist", hint="create it, or correct the store's URL")
    if code in _NO_ACCESS:
        return StoreError(text, hint="check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and the bucket's policy")
    if code in _FULL or status == 507:
        return StoreUnavailableError(f"{text}: the store is full", hint="free space in the store or raise the quota")
    if code in _TRY_AGAIN or status >= 500 or status == 429:
        return StoreUnavailableError(text)
    return StoreError(text)
