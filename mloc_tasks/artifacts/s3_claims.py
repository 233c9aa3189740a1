"""Who is writing a directory of an S3 store: one small object for each `put_dir` under way.

S3 has neither rename nor transactions, so two writers of one prefix could mix their files. A writer therefore first
creates `.mloc-claims/PREFIX/claim` with `If-None-Match: *`, which succeeds for exactly one of several (AWS, Ceph,
MinIO; a server that does not know the condition lets both in, and mixed files then fail verification against the
manifest). The claim also tells a listing which directories are not complete.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from mloc_tasks.artifacts.names import RESERVED
from mloc_tasks.artifacts.s3_connection import code_of, is_missing
from mloc_tasks.artifacts.s3_transfer import keys_below
from mloc_tasks.errors import ArtifactExistsError, StoreUnavailableError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

CLAIMS = f"{RESERVED}claims/"
_CLAIM = "/claim"
_TAKEN = {"PreconditionFailed", "412", "ConditionalRequestConflict", "409"}
_TRIES = 5  # each lost to a writer that gave up between our two requests
# A server that refuses the condition itself.
_UNCONDITIONAL = {"NotImplemented", "501"}


class Claims:
    """The claims of one store object; several threads may use it."""

    def __init__(self, bucket: str, root: str) -> None:
        self._bucket = bucket
        self._root = root
        self._instance = uuid.uuid4().hex
        self._writing: set[str] = set()
        self._lock = threading.Lock()

    def acquire(self, client: S3Client, prefix: str) -> None:
        """Claim `prefix`, or raise `ArtifactExistsError` when another writer has it."""
        with self._lock:
            if prefix in self._writing:
                raise _taken(prefix, {})
            self._writing.add(prefix)
        try:
            for _ in range(_TRIES):
                if self._create(client, prefix):
                    return
                holder = self._holder(client, prefix)
                # Ours: left by a put that failed and could not clean up, or the answer to the first request got lost.
                if holder and holder.get("owner") == self._owner():
                    return
                if holder is not None:
                    raise _taken(prefix, holder)
            raise StoreUnavailableError(f"{prefix}: many writers at once; none could be told from the others")
        except BaseException:
            with self._lock:
                self._writing.discard(prefix)
            raise

    def end(self, prefix: str) -> None:
        """Say that this process no longer writes `prefix`."""
        with self._lock:
            self._writing.discard(prefix)

    def key(self, prefix: str) -> str:
        return f"{self._root}{CLAIMS}{prefix}{_CLAIM}"

    def claimed(self, client: S3Client, prefix: str) -> Iterator[str]:
        """Claimed prefixes that lie above, at or below `prefix` ("": all)."""
        # Directories above `prefix` can be claimed, too; all that matter share its first segment.
        start = f"{self._root}{CLAIMS}{prefix.partition('/')[0]}{'/' if prefix else ''}"
        for page in keys_below(client, self._bucket, start):
            for key, _ in page:
                claimed = key.removeprefix(self._root + CLAIMS).removesuffix(_CLAIM)
                if not prefix or f"{claimed}/".startswith(f"{prefix}/") or f"{prefix}/".startswith(f"{claimed}/"):
                    yield claimed

    def _owner(self) -> str:
        return f"{self._instance}-{os.getpid()}"  # a fork copies the instance's id

    def _create(self, client: S3Client, prefix: str) -> bool:
        claim = {"owner": self._owner(), "host": socket.gethostname(), "pid": os.getpid(), "since": time.time()}
        body = json.dumps(claim).encode()
        try:
            client.put_object(Bucket=self._bucket, Key=self.key(prefix), Body=body, IfNoneMatch="*")
        except ClientError as error:
            if code_of(error) in _TAKEN:
                return False
            if code_of(error) not in _UNCONDITIONAL:
                raise
            client.put_object(Bucket=self._bucket, Key=self.key(prefix), Body=body)
        return True

    def _holder(self, client: S3Client, prefix: str) -> dict[str, object] | None:
        try:
            with client.get_object(Bucket=self._bucket, Key=self.key(prefix))["Body"] as body:
                holder = json.loads(body.read())
        except ClientError as error:
            if is_missing(error):
                return None
            raise
        except ValueError:
            return {}
        return holder if isinstance(holder, dict) else {}


def _taken(prefix: str, holder: dict[str, object]) -> ArtifactExistsError:
    who = f" (process {holder['pid']} on {holder['host']})" if {"pid", "host"} <= holder.keys() else ""
    return ArtifactExistsError(
        f"{prefix!r} is being written by another process{who}, or its writing was cut off",
        hint="use another prefix, or delete this one when nothing writes it any more",
    )
