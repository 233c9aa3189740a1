"""Many S3 objects at once: listing, upload, download, deletion."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from mloc_tasks.errors import StoreError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from s3transfer.futures import TransferFuture
    from s3transfer.manager import TransferManager

_DELETE_AT_ONCE = 1000  # S3's limit


def keys_below(client: S3Client, bucket: str, start: str) -> Iterator[list[tuple[str, int]]]:
    """Pages of (key, bytes) of all objects whose key begins with `start`, in the order of keys."""
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=start):
        yield [(item["Key"], item["Size"]) for item in page.get("Contents", ())]


def upload_all(
    transfers: TransferManager, bucket: str, paths: Mapping[str, str], metadata: Mapping[str, Mapping[str, str]]
) -> list[TransferFuture]:
    """Begin to upload the files `paths` (key -> path); end with `finish`."""
    futures: list[TransferFuture] = []
    try:
        for key, path in paths.items():
            futures.append(transfers.upload(path, bucket, key, extra_args={"Metadata": metadata[key]}))
    except BaseException:
        cancel(futures)
        raise
    return futures


def download_all(transfers: TransferManager, bucket: str, paths: Mapping[str, Path]) -> None:
    """Download the objects `paths` (key -> path); at the first failure the rest is cancelled and it is raised."""
    futures: list[TransferFuture] = []
    try:
        for key, path in paths.items():
            futures.append(transfers.download(bucket, key, str(path)))
        for future in futures:
            future.result()
    except BaseException:
        cancel(futures)
        raise


def cancel(futures: Sequence[TransferFuture]) -> None:
    """Stop transfers, and return when none touches a file or the server any more."""
    for future in futures:
        future.cancel()
    for future in futures:
        with suppress(Exception):  # each ends in "cancelled", or in the error that is already on its way up
            future.result()


def delete_keys(client: S3Client, bucket: str, keys: Sequence[str]) -> None:
    """Delete objects; those that do not exist are no error."""
    for start in range(0, len(keys), _DELETE_AT_ONCE):
        batch = keys[start : start + _DELETE_AT_ONCE]
        answer = client.delete_objects(
            Bucket=bucket, Delete={"Objects": [{"Key": key} for key in batch], "Quiet": True}
        )
        for refused in answer.get("Errors", ()):
            raise StoreError(f"s3://{bucket}/{refused.get('Key')}: not deleted: {refused.get('Message')}")


def abort_uploads(client: S3Client, bucket: str, start: str) -> None:
    """End multipart uploads that a killed process left behind; their parts take space and show nowhere."""
    for page in client.get_paginator("list_multipart_uploads").paginate(Bucket=bucket, Prefix=start):
        for upload in page.get("Uploads", ()):
            client.abort_multipart_upload(Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])
