"""One store of each kind, new for every test."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from mloc_tasks.artifacts import ArtifactStore, open_store
from tests.s3_server import LIVE_ENDPOINT, new_bucket

MakeStore = Callable[[], ArtifactStore]


@pytest.fixture
def moto_store_url(moto_endpoint: str, moto_credentials: None, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("S3_ENDPOINT_URL", moto_endpoint)
    return f"s3://{new_bucket(moto_endpoint)}/some/root"


@pytest.fixture
def live_store_url(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("S3_ENDPOINT_URL", LIVE_ENDPOINT)
    return f"s3://{new_bucket(LIVE_ENDPOINT)}/some/root"


@pytest.fixture(params=["local", "moto", *(["live"] if LIVE_ENDPOINT else [])])
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
