"""A run whose artifacts go to an S3 store."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mloc_tasks.artifacts import open_store
from mloc_tasks.settings import reset_settings
from scheduler import submit_yaml
from scheduler.embedded import LocalWorker
from tests.s3_server import new_bucket

WAIT_SEC = 60
QUEUE = "s3-test"
SPEC = """
apiVersion: mloc/v1
kind: Workflow
metadata: {name: to-s3}
spec:
  taskType: echo
  stages:
    - name: rows
      data: {type: list, items: [a, b, c, d, e]}
      parallel: {enabled: true, max_shards: 2}
    - name: last
      message: "${rows.items[4].output}"
"""


@pytest.mark.usefixtures("valkey", "moto_credentials")
def test_shards_references_and_the_result_go_through_the_store(
    moto_endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = new_bucket(moto_endpoint)
    queues = tmp_path / "queues.yaml"
    queues.write_text(f"queues: {{{QUEUE}: {{taskTypes: ['*']}}}}")
    monkeypatch.setenv("MLOC_QUEUES_FILE", str(queues))
    monkeypatch.setenv("MLOC_ARTIFACTS_URL", f"s3://{bucket}/runs")
    monkeypatch.setenv("MLOC_S3_ENDPOINT_URL", moto_endpoint)
    reset_settings()
    worker = LocalWorker([QUEUE], log=tmp_path / "worker.log", concurrency=1, options=("-n", "s3@%h"))
    worker.start()
    try:
        run = submit_yaml(SPEC)
        assert run.result(timeout=WAIT_SEC)["message"] == "e"
        with run.open("rows/responses.json") as stream:
            assert len(json.load(stream)["items"]) == 5
        names = [artifact.name for artifact in run.artifacts()]
        assert names == ["rows/responses.json", "last/responses.json"]
        monkeypatch.delenv("MLOC_ARTIFACTS_URL")
        store = open_store(f"s3://{bucket}/runs", endpoint_url=moto_endpoint)
        assert json.loads(store.read_bytes(f"{run.id}/responses.json"))["message"] == "e"
    finally:
        worker.stop()
        monkeypatch.undo()
        reset_settings()
