"""Models in S3: an object (an archive, a .gguf), a directory that MLOC stored, or any objects below a prefix."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, cast

from mloc_tasks.artifacts import ArtifactInfo, ArtifactStore, Manifest
from mloc_tasks.artifacts.disk import disk_errors
from mloc_tasks.artifacts.names import RESERVED, check_name
from mloc_tasks.artifacts.source import sha256_of
from mloc_tasks.artifacts.staging import verify
from mloc_tasks.errors import ModelError, StoreError, StoreUnavailableError
from mloc_tasks.models.remote import Remote, model_errors, nothing_there

if TYPE_CHECKING:
    from mloc_tasks.artifacts.s3 import S3Store

OpenStore = Callable[[str], ArtifactStore]

_FILES = "files"
_SHA256 = "mloc-sha256"  # in the metadata of an object that MLOC put


def find_s3(url: str, *, field: str, open_store: OpenStore) -> Remote:
    """What lies at `s3://bucket/key-or-prefix`.

    Raises ModelError when there is nothing, ModelUnavailableError when the store does not answer.
    """
    bucket_name, _, key = url.partition("://")[2].partition("/")
    if not bucket_name or not key.strip("/"):
        raise ModelError(f"{field}: {url} names no object", hint="write s3://BUCKET/PREFIX")
    with model_errors(field, url):
        bucket = _Bucket(cast("S3Store", open_store(f"s3://{bucket_name}")))
        found = _look(bucket, key)
    if found is None:
        raise nothing_there(field, url)
    return _S3Remote(url, field=field, bucket=bucket, key=key, found=found)


@dataclass(frozen=True, kw_only=True)
class _Found:
    """What lies at a key, of one kind of the three, and what it takes to fetch it."""

    version: str
    size: int
    sha256: str = ""  # of an object
    directory: str = ""  # the prefix of the stored directory that holds it
    names: tuple[str, ...] = ()  # of it, or of the objects below the key; empty for an object


class _S3Remote(Remote):
    def __init__(self, url: str, *, field: str, bucket: _Bucket, key: str, found: _Found) -> None:
        super().__init__(url, field=field, version=found.version, size=found.size)
        self._bucket = bucket
        self._key = key
        self._found = found

    def fetch(self, staging: Path) -> Path:
        found = self._found
        target = staging / _FILES
        if found.directory:
            self._bucket.store.get_dir(found.directory, target, found.names)
            return target / self._key.strip("/").removeprefix(found.directory).strip("/")
        if found.names:
            prefix = self._key.rstrip("/")
            self._bucket.download({f"{prefix}/{name}": target / name for name in found.names})
            return target
        return self._fetch_object(staging)

    def _fetch_object(self, staging: Path) -> Path:
        name = PurePosixPath(self._key).name
        path = staging / name
        self._bucket.download({self._key: path})
        expected = self._found.sha256 or self._bucket.digest_of(self._key)
        if expected:
            info = ArtifactInfo(name, path.stat().st_size, sha256_of(path))
            verify(info, ArtifactInfo(name, self._found.size, expected), self.shown)
        return path

    def version_now(self) -> str:
        found = _look(self._bucket, self._key)
        return found.version if found is not None else ""


def _look(bucket: _Bucket, key: str) -> _Found | None:
    if not key.endswith("/") and (head := bucket.head(key)) is not None:
        version = f"{head['ETag']} {head['ContentLength']}"
        return _Found(version=version, size=head["ContentLength"], sha256=head["Metadata"].get(_SHA256, ""))
    prefix = key.strip("/")
    stored = bucket.stored_directory(prefix)
    if stored is not None:
        directory, manifest = stored
        version = hashlib.sha256(manifest.to_json()).hexdigest()
        names = tuple(info.name for info in manifest.files)
        return _Found(version=version, size=manifest.size, directory=directory, names=names)
    objects = bucket.below(prefix)
    if not objects:
        return None
    return _Found(
        version=hashlib.sha256(json.dumps(objects).encode()).hexdigest(),
        size=sum(size for _, size, _ in objects),
        names=tuple(name for name, _, _ in objects),
    )


class _Bucket:
    """A bucket as anybody may have filled it; MLOC's own directories in it are seen through `store`, its root."""

    def __init__(self, store: S3Store) -> None:
        from mloc_tasks.artifacts.s3_connection import connect

        self.store = store
        self._connection = connect(store.settings)

    def head(self, key: str) -> dict[str, Any] | None:
        """What the server says of an object; None when there is none."""
        from botocore.exceptions import ClientError

        from mloc_tasks.artifacts.s3_connection import is_missing, s3_errors

        with s3_errors(self._url(key)):
            try:
                return dict(self._connection.client.head_object(Bucket=self.store.bucket, Key=key))
            except ClientError as error:
                if is_missing(error):
                    return None
                raise

    def below(self, prefix: str) -> Sequence[tuple[str, int, str]]:
        """(name relative to `prefix`, bytes, ETag) of all objects below it; `StoreError` for a name that leads out."""
        from mloc_tasks.artifacts.s3_connection import s3_errors

        found = []
        with s3_errors(self._url(prefix)):
            pages = self._connection.client.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self.store.bucket, Prefix=f"{prefix}/"):
                for item in page.get("Contents", ()):
                    name = item["Key"].removeprefix(f"{prefix}/")
                    if not name or name.endswith("/") or f"/{name}".find(f"/{RESERVED}") >= 0:
                        continue  # what consoles make to show a folder; the store's own bookkeeping
                    found.append((check_name(name), item["Size"], item["ETag"]))
        return found

    def download(self, paths: dict[str, Path]) -> None:
        """Download objects (key -> path), several parts of them at once."""
        from mloc_tasks.artifacts.s3_connection import s3_errors
        from mloc_tasks.artifacts.s3_transfer import download_all

        for path in paths.values():
            path.parent.mkdir(parents=True, exist_ok=True)
        first = next(iter(paths))
        with disk_errors(paths[first]), s3_errors(self._url(first)):
            download_all(self._connection.transfers, self.store.bucket, paths)

    def stored_directory(self, prefix: str) -> tuple[str, Manifest] | None:
        """The directory that MLOC stored at or above `prefix`, and what of it lies at or below `prefix`."""
        directory = prefix
        while directory:
            manifest = self._manifest(directory)
            if manifest is not None:
                inside = prefix.removeprefix(directory).strip("/")
                files = tuple(info for info in manifest.files if not inside or info.name.startswith(f"{inside}/"))
                if files:
                    return directory, Manifest(files)
            directory = directory.rpartition("/")[0]
        return None

    def digest_of(self, key: str) -> str:
        """The SHA-256 of an object that is part of a directory that MLOC stored; "" of any other."""
        directory = key.rpartition("/")[0]
        while directory:
            for info in (self._manifest(directory) or Manifest(())).files:
                if f"{directory}/{info.name}" == key:
                    return info.sha256
            directory = directory.rpartition("/")[0]
        return ""

    def _manifest(self, prefix: str) -> Manifest | None:
        try:
            return self.store.manifest(prefix)
        except StoreUnavailableError:
            raise
        except StoreError:
            return None  # a prefix that MLOC would not have used, one that we may not read, another's manifest.json

    def _url(self, key: str) -> str:
        return f"s3://{self.store.bucket}/{key}"
