"""Where the files that attempts produce are kept: a local directory or an S3-compatible store, behind one interface.

Importing this package does not import boto3; opening an `s3://` store does.
"""

from mloc_tasks.artifacts.archives import pack, unpack
from mloc_tasks.artifacts.store import ArtifactInfo, ArtifactStore, Manifest
from mloc_tasks.artifacts.urls import open_store, open_url

__all__ = ["ArtifactInfo", "ArtifactStore", "Manifest", "open_store", "open_url", "pack", "unpack"]
