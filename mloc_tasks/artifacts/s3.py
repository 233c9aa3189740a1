"""An artifact store in a bucket of an S3-compatible server: AWS, MinIO, SeaweedFS, Ceph and others."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from botocore.exceptions import ClientError

from mloc_tasks.artifacts.disk import disk_errors
from mloc_tasks.artifacts.names import MANIFEST_NAME, check_name, check_object_name
from mloc_tasks.artifacts.parallel import each
from mloc_tasks.artifacts.remote import Opened, RemoteReader, buffered
from mloc_tasks.artifacts.s3_claims import CLAIMS, Claims
from mloc_tasks.artifacts.s3_connection import (
    STREAM_ERRORS,
    Connection,
    S3Settings,
    connect,
    is_missing,
    s3_errors,
)
from mloc_tasks.artifacts.s3_transfer import abort_uploads, cancel, delete_keys, download_all, keys_below, upload_all
from mloc_tasks.artifacts.source import SourceFile, files_of, open_source, sha256_of
from mloc_tasks.artifacts.staging import filled_directory, verify
from mloc_tasks.artifacts.store import ArtifactInfo, ArtifactStore, Manifest
from mloc_tasks.errors import ArtifactExistsError, ArtifactNotFoundError, StoreError
from mloc_tasks.scratch import make_scratch, remove_scratch

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

# Object metadata. `mloc-depth` marks a file of a directory: how many segments of its key are the name within it.
_DEPTH = "mloc-depth"
_SHA256 = "mloc-sha256"
_HASH_THREADS = 4
# Cleaning up behind a failed put must not double the time that the failure took.
_CLEANUP_SECONDS = 5.0


class S3Store(ArtifactStore):
    """Artifacts as objects `bucket/prefix/NAME`, under their own names, so that any S3 tool finds them.

    A directory's files carry in their metadata that they belong to one; they do not count until the directory's
    manifest.json exists, which is put last. Its writer holds a claim on the prefix (see `s3_claims`). A put that
    fails removes what it has put; one that is killed leaves objects that no method shows and that `delete` removes.
    """

    def __init__(self, url: str, settings: S3Settings) -> None:
        bucket, _, root = url.removeprefix("s3://").partition("/")
        root = root.strip("/")
        if not bucket:
            raise StoreError(f"{url}: no bucket", hint="write s3://BUCKET/PREFIX")
        if root:
            check_name(root)
        self.bucket = bucket
        self.settings = settings
        self.url = f"s3://{bucket}/{root}" if root else f"s3://{bucket}"
        self._root = f"{root}/" if root else ""
        self._claims = Claims(bucket, self._root)

    def put_dir(self, source: Path, prefix: str, *, move: bool = False) -> Manifest:
        check_name(prefix)
        files = files_of(source)
        for file in files:
            check_name(f"{prefix}/{file.name}")
        with disk_errors(source), s3_errors(self.url_of(prefix)):
            self._claims.acquire(self._client, prefix)
            clean = True
            try:
                self._refuse_existing(prefix)
                clean = False
                manifest = self._put_files(files, prefix)
                clean = True
            finally:
                self._end_put(files, prefix, clean=clean)
        if move:
            shutil.rmtree(source, ignore_errors=True)
        return manifest

    def put_bytes(self, data: bytes, name: str) -> ArtifactInfo:
        info = ArtifactInfo(check_object_name(name), len(data), hashlib.sha256(data).hexdigest())
        with s3_errors(self.url_of(name)):
            self._client.put_object(Bucket=self.bucket, Key=self._key(name), Body=data, Metadata={_SHA256: info.sha256})
        return info

    def put_file(self, source: Path, name: str) -> ArtifactInfo:
        check_object_name(name)
        with open_source(source) as stream, disk_errors(source):
            info = ArtifactInfo(name, os.fstat(stream.fileno()).st_size, sha256_of(source))
        with disk_errors(source), s3_errors(self.url_of(name)):
            extra = {"Metadata": {_SHA256: info.sha256}}
            self._connection.transfers.upload(str(source), self.bucket, self._key(name), extra_args=extra).result()
        return info

    def get_dir(self, prefix: str, target: Path, names: Collection[str] | None = None) -> Manifest:
        manifest = self.manifest(prefix)
        if manifest is None:
            raise ArtifactNotFoundError(f"no complete artifact {prefix!r} in {self.url}")
        if names is not None:
            manifest = manifest.only(names)
        with disk_errors(target), s3_errors(self.url_of(prefix)), filled_directory(target) as staging:
            wanted = {self._key(f"{prefix}/{info.name}"): staging / info.name for info in manifest.files}
            for path in wanted.values():
                path.parent.mkdir(parents=True, exist_ok=True)
            download_all(self._connection.transfers, self.bucket, wanted)

            def check(info: ArtifactInfo) -> None:
                path = staging / info.name
                found = ArtifactInfo(info.name, path.stat().st_size, sha256_of(path))
                verify(found, info, self.url_of(f"{prefix}/{info.name}"))

            each(check, manifest.files, threads=_HASH_THREADS)
        return manifest

    def open(self, name: str) -> BinaryIO:
        return self._open(self._key(check_name(name)), must_be_whole=True)

    def open_key(self, key: str) -> BinaryIO:
        """Open any object of the bucket by its full key, also one that this package did not write."""
        return self._open(key, must_be_whole=False)

    def manifest(self, prefix: str) -> Manifest | None:
        key = self._key(f"{check_name(prefix)}/{MANIFEST_NAME}")
        with s3_errors(self.url_of(prefix)):
            try:
                response = self._client.get_object(Bucket=self.bucket, Key=key)
            except ClientError as error:
                if is_missing(error):
                    return None
                raise
            with response["Body"] as body:
                data = body.read()
        # A file that happens to have this name inside a directory is not a manifest.
        return None if _DEPTH in response["Metadata"] else Manifest.from_json(data)

    def list(self, prefix: str = "") -> Iterator[ArtifactInfo]:
        with s3_errors(self.url):
            if prefix and (head := self._head(self._key(check_name(prefix)))) and self._is_whole(prefix, head[1]):
                yield ArtifactInfo(prefix, head[0])
            for page in keys_below(self._client, self.bucket, self._key(f"{prefix}/") if prefix else self._root):
                # Asked after the page, so that a directory begun since cannot have files in it.
                hidden = self._incomplete_directories(prefix)
                for key, size in page:
                    name = key.removeprefix(self._root)
                    if not (
                        name.startswith((CLAIMS, *hidden))
                        or name.endswith("/")
                        or name.rpartition("/")[2] == MANIFEST_NAME
                    ):
                        yield ArtifactInfo(name, size)

    def copy(self, source_name: str, target_name: str) -> ArtifactInfo:
        check_object_name(target_name)
        source = self._info_of(check_name(source_name))
        with s3_errors(self.url_of(source_name)):
            self._connection.transfers.copy(
                {"Bucket": self.bucket, "Key": self._key(source_name)},
                self.bucket,
                self._key(target_name),
                extra_args={"MetadataDirective": "REPLACE", "Metadata": {_SHA256: source.sha256}},
            ).result()
        return replace(source, name=target_name)

    def delete(self, prefix: str) -> None:
        check_name(prefix)
        with s3_errors(self.url_of(prefix)):
            below = [key for page in keys_below(self._client, self.bucket, self._key(f"{prefix}/")) for key, _ in page]
            manifests = [key for key in below if key.rpartition("/")[2] == MANIFEST_NAME]
            claimed = [
                name for name in self._claims.claimed(self._client, prefix) if f"{name}/".startswith(f"{prefix}/")
            ]
            claims = [self._claims.key(name) for name in claimed]
            files = [self._key(prefix), *(set(below) - set(manifests))]
            for keys in (manifests, files, claims):
                delete_keys(self._client, self.bucket, keys)
            abort_uploads(self._client, self.bucket, self._key(f"{prefix}/"))

    def url_of(self, name: str) -> str:
        return f"{self.url}/{check_name(name)}"

    def scratch(self, owner: str) -> Path:
        with disk_errors(tempfile.gettempdir()):
            return make_scratch(tempfile.gettempdir(), check_name(owner))

    def sweep(self, owner: str) -> None:
        remove_scratch(tempfile.gettempdir(), check_name(owner))

    @property
    def _connection(self) -> Connection:
        return connect(self.settings)

    @property
    def _client(self) -> S3Client:
        return self._connection.client

    def _key(self, name: str) -> str:
        return self._root + name

    def _put_files(self, files: Sequence[SourceFile], prefix: str) -> Manifest:
        paths = {self._key(f"{prefix}/{file.name}"): file.path for file in files}
        depths = {self._key(f"{prefix}/{file.name}"): {_DEPTH: str(file.name.count("/") + 1)} for file in files}
        uploads = upload_all(self._connection.transfers, self.bucket, paths, depths)
        try:
            # Hashed while they travel: the second reader finds the file in memory.
            digests = each(lambda file: sha256_of(file.path), files, threads=_HASH_THREADS)
            for upload in uploads:
                upload.result()
        except BaseException:
            cancel(uploads)
            raise
        manifest = Manifest(
            tuple(ArtifactInfo(file.name, file.size, digest) for file, digest in zip(files, digests, strict=True))
        )
        key = self._key(f"{prefix}/{MANIFEST_NAME}")
        self._client.put_object(Bucket=self.bucket, Key=key, Body=manifest.to_json(), ContentType="application/json")
        return manifest

    def _end_put(self, files: Sequence[SourceFile], prefix: str, *, clean: bool) -> None:
        """Remove what a failed put has put, then the claim; where that fails, the claim stays and hides the rest."""
        self._claims.end(prefix)
        client = self._client
        with suppress(StoreError), s3_errors(self.url):
            if not clean:
                seconds = min(_CLEANUP_SECONDS, self.settings.read_timeout)
                hasty = replace(self.settings, attempts=1, read_timeout=seconds, connect_timeout=seconds)
                client = connect(hasty).client
                # The manifest first: it may have arrived although its answer did not.
                client.delete_object(Bucket=self.bucket, Key=self._key(f"{prefix}/{MANIFEST_NAME}"))
                delete_keys(client, self.bucket, [self._key(f"{prefix}/{file.name}") for file in files])
            client.delete_object(Bucket=self.bucket, Key=self._claims.key(prefix))

    def _refuse_existing(self, prefix: str) -> None:
        if self._head(self._key(f"{prefix}/{MANIFEST_NAME}")) is not None:
            raise ArtifactExistsError(
                f"there is already an artifact {prefix!r} in {self.url}", hint="delete it first, or use another prefix"
            )

    def _head(self, key: str) -> tuple[int, Mapping[str, str]] | None:
        """Bytes and metadata of an object, or None when there is none."""
        try:
            response = self._client.head_object(Bucket=self.bucket, Key=key)
        except ClientError as error:
            if is_missing(error):
                return None
            raise
        return response["ContentLength"], response["Metadata"]

    def _directory_of(self, name: str, metadata: Mapping[str, str]) -> str | None:
        """The prefix whose `put_dir` put `name` there; None for an object."""
        depth = metadata.get(_DEPTH, "")
        return name.rsplit("/", int(depth))[0] if depth.isdecimal() else None

    def _is_whole(self, name: str, metadata: Mapping[str, str]) -> bool:
        directory = self._directory_of(name, metadata)
        return directory is None or self._head(self._key(f"{directory}/{MANIFEST_NAME}")) is not None

    def _info_of(self, name: str) -> ArtifactInfo:
        """One visible file with its digest; `ArtifactNotFoundError`."""
        with s3_errors(self.url_of(name)):
            head = self._head(self._key(name))
        if head is not None:
            size, metadata = head
            directory = self._directory_of(name, metadata)
            if directory is None:
                return ArtifactInfo(name, size, metadata.get(_SHA256, ""))
            manifest = self.manifest(directory)
            if manifest is not None:
                return replace(manifest.only([name.removeprefix(f"{directory}/")]).files[0], name=name)
        raise ArtifactNotFoundError(f"no artifact {name!r} in {self.url}")

    def _incomplete_directories(self, prefix: str) -> tuple[str, ...]:
        claimed = self._claims.claimed(self._client, prefix)
        return tuple(f"{name}/" for name in claimed if self._head(self._key(f"{name}/{MANIFEST_NAME}")) is None)

    def _open(self, key: str, *, must_be_whole: bool) -> BinaryIO:
        where = f"s3://{self.bucket}/{key}"

        def open_at(offset: int) -> Opened:
            return self._get(key, where, offset)[0]

        first, metadata = self._get(key, where, 0)
        name = key.removeprefix(self._root)
        if must_be_whole:
            with s3_errors(where):
                if not self._is_whole(name, metadata):
                    first.body.close()
                    raise ArtifactNotFoundError(f"{where}: the artifact it belongs to is not complete")
        return buffered(RemoteReader(open_at, first, where=where, broken=STREAM_ERRORS))

    def _get(self, key: str, where: str, offset: int) -> tuple[Opened, Mapping[str, str]]:
        with s3_errors(where):
            if offset:
                response = self._client.get_object(Bucket=self.bucket, Key=key, Range=f"bytes={offset}-")
            else:
                response = self._client.get_object(Bucket=self.bucket, Key=key)
        opened = Opened(response["Body"], response["ContentLength"] + offset, response["ETag"])
        return opened, response["Metadata"]
