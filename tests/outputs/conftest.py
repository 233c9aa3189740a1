"""A worker whose artifacts go to a local store or to S3, with the executors of these tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mloc_tasks.settings import reset_settings
from scheduler.embedded import LocalWorker
from tests.s3_server import new_bucket

PLUGINS = Path(__file__).parents[1] / "plugins"
QUEUE = "outputs"


@pytest.fixture(scope="module", params=["local", "s3"])
def store_url(request: pytest.FixtureRequest, valkey: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The root of the artifact store that a worker on queue `outputs` uses, and this process too."""
    folder = tmp_path_factory.mktemp("outputs")
    (folder / "queues.yaml").write_text(f"queues: {{{QUEUE}: {{taskTypes: ['*']}}}}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLOC_QUEUES_FILE", str(folder / "queues.yaml"))
        patch.setenv("MLOC_CACHE_DIR", str(folder / "cache"))
        patch.setenv("PYTHONPATH", os.pathsep.join([str(PLUGINS), os.environ.get("PYTHONPATH", "")]))
        patch.syspath_prepend(str(PLUGINS))
        url = (folder / "results").as_uri()
        if request.param == "s3":
            endpoint = request.getfixturevalue("moto_endpoint")
            patch.setenv("AWS_ACCESS_KEY_ID", "test")
            patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
            patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
            patch.setenv("MLOC_S3_ENDPOINT_URL", endpoint)
            url = f"s3://{new_bucket(endpoint)}/runs"
        patch.setenv("MLOC_ARTIFACTS_URL", url)
        reset_settings()
        worker = LocalWorker([QUEUE], log=folder / "worker.log", concurrency=1, options=("-n", f"{request.param}@%h"))
        worker.start()
        yield url
        worker.stop()
    reset_settings()
