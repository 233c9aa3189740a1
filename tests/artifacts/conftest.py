"""One store of each kind, new for every test."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mloc_tasks.artifacts import ArtifactStore, open_store
from mloc_tasks.artifacts.s3_connection import S3Settings, connect

MakeStore = Callable[[], ArtifactStore]
LIVE_ENDPOINT = os.environ.get("MLOC_TEST_S3_ENDPOINT", "")


@pytest.fixture(scope="session")
def moto_endpoint() -> Iterator[str]:
    """An S3 server in a process of its own, so that requests really travel."""
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stderr is not None
        for line in server.stderr:
            if found := re.search(r"Running on (http://127\.0\.0\.1:\d+)", line):
                break
        else:
            pytest.fail("the moto server ended before it listened")
        # Its log of requests would fill the pipe and stop it.
        drain = subprocess.Popen(["cat"], stdin=server.stderr, stdout=subprocess.DEVNULL)
        yield found[1]
    finally:
        server.kill()
        server.wait()
    drain.wait()


@pytest.fixture
def moto_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.delenv("AWS_PROFILE", raising=False)


def new_bucket(endpoint: str) -> str:
    bucket = f"mloc-test-{uuid.uuid4().hex[:12]}"
    connect(S3Settings(endpoint_url=endpoint)).client.create_bucket(Bucket=bucket)
    return bucket


@pytest.fixture
def moto_store_url(moto_endpoint: str, moto_credentials: None, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("S3_ENDPOINT_URL", moto_endpoint)
    return f"s3://{new_bucket(moto_endpoint)}/some/root"


@pytest.fixture
def live_store_url(monkeypatch: pytest.MonkeyPatch) -> str:
    if not LIVE_ENDPOINT:
        pytest.skip("MLOC_TEST_S3_ENDPOINT is not set")
    monkeypatch.setenv("S3_ENDPOINT_URL", LIVE_ENDPOINT)
    return f"s3://{new_bucket(LIVE_ENDPOINT)}/some/root"


@pytest.fixture(params=["local", "moto", "live"])
def make_store(request: pytest.FixtureRequest, tmp_path: Path) -> MakeStore:
    """Opens the same store again at each call, as another process would."""
    url = str(tmp_path / "root") if request.param == "local" else request.getfixturevalue(f"{request.param}_store_url")
    return lambda: open_store(url)


@pytest.fixture
def store(make_store: MakeStore) -> ArtifactStore:
    return make_store()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A stage's output: small files, some in folders, with odd but legal names."""
    directory = tmp_path / "output"
    (directory / "model" / "deep").mkdir(parents=True)
    (directory / "responses.json").write_bytes(b'{"ok": true}')
    (directory / "empty.txt").write_bytes(b"")
    (directory / "model" / "weights.bin").write_bytes(os.urandom(100_000))
    (directory / "model" / "deep" / "näme with space+%41#?.txt").write_bytes(b"odd")
    return directory
