"""What tests of fetching share: models of a few bytes, a log that remembers, servers on loopback."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from file_server import FileServer, file_server
from model_directories import Lines, filled

from mloc_tasks.artifacts import pack
from tests.s3_server import new_bucket


@pytest.fixture
def lines() -> Lines:
    return Lines()


@pytest.fixture
def server() -> Iterator[FileServer]:
    with file_server() as running:
        yield running


@pytest.fixture
def bucket(moto_endpoint: str, moto_credentials: None, monkeypatch: pytest.MonkeyPatch) -> str:
    """A new, empty bucket of a real S3 server, as `s3://NAME`."""
    monkeypatch.setenv("S3_ENDPOINT_URL", moto_endpoint)
    return f"s3://{new_bucket(moto_endpoint)}"


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    """A model's directory as far as its names go, with a folder in it."""
    return filled(tmp_path / "model", {"config.json": "{}", "model.safetensors": "weights", "extra/notes.txt": "n"})


@pytest.fixture
def adapter_dir(tmp_path: Path) -> Path:
    return filled(tmp_path / "adapter", {"adapter_config.json": "{}", "adapter_model.safetensors": "weights"})


@pytest.fixture
def archive_of(tmp_path: Path) -> Callable[[Path, str], Path]:
    """Packs a directory as a file of a name."""
    folder = tmp_path / "archives"
    folder.mkdir()
    return lambda directory, name: pack(directory, folder / name)
