"""Full disks, dead servers, killed writers: what remains, and what is said."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from mloc_tasks.artifacts import ArtifactStore, open_store, open_url, pack, unpack
from mloc_tasks.artifacts.disk import disk_error
from mloc_tasks.errors import ArtifactExistsError, ArtifactNotFoundError, StoreError, StoreUnavailableError

MIB = 1 << 20


def all_files(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if not path.is_dir())


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB."""
    disk = tmp_path / "small"
    disk.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", disk], capture_output=True, text=True)
    if mount.returncode:
        pytest.skip(f"cannot mount a tmpfs here: {mount.stderr.strip()}")
    yield disk
    subprocess.run(["umount", disk], check=True)


@pytest.fixture
def large(tmp_path: Path) -> Path:
    directory = tmp_path / "large"
    directory.mkdir()
    (directory / "a-small.txt").write_text("1")
    for i in range(6):
        (directory / f"weights-{i}.bin").write_bytes(os.urandom(MIB))
    return directory


def assert_says_full(error: StoreUnavailableError, disk: Path) -> None:
    assert error.retryable
    assert f"no space left writing below {disk}" in str(error)
    assert "free of 2.0 MiB" in str(error)
    assert f"free space on the disk that holds {disk}" in error.hint


@pytest.mark.parametrize("move", [False, True])
def test_a_full_disk_leaves_no_trace_of_the_put(small_disk: Path, large: Path, move: bool) -> None:
    store = open_store(small_disk / "root")
    store.put_bytes(b"before", "kept")
    with pytest.raises(StoreUnavailableError) as caught:
        store.put_dir(large, "p", move=move)
    assert_says_full(caught.value, small_disk)
    with pytest.raises(StoreUnavailableError) as caught:
        store.put_bytes(bytes(3 * MIB), "q")
    assert_says_full(caught.value, small_disk)
    with pytest.raises(StoreUnavailableError) as caught:
        store.put_file(pack(large, large.parent / "a.tar"), "q")
    assert_says_full(caught.value, small_disk)
    assert all_files(small_disk) == ["root/kept"]
    assert len(all_files(large)) == 7
    store.put_bytes(bytes(MIB), "room again")


def test_a_full_disk_fails_a_fetch_without_leaving_files(small_disk: Path, store: ArtifactStore, large: Path) -> None:
    store.put_dir(large, "p")
    with pytest.raises(StoreUnavailableError) as caught:
        store.get_dir("p", small_disk / "target")
    assert_says_full(caught.value, small_disk)
    assert all_files(small_disk) == []


def test_a_full_disk_fails_packing_and_unpacking_without_leaving_files(small_disk: Path, large: Path) -> None:
    with pytest.raises(StoreUnavailableError) as caught:
        pack(large, small_disk / "a.tar")
    assert_says_full(caught.value, small_disk)
    archive = pack(large, large.parent / "a.tar.gz")
    with pytest.raises(StoreUnavailableError) as caught:
        unpack(archive, small_disk / "target")
    assert_says_full(caught.value, small_disk)
    assert all_files(small_disk) == []


def test_an_exceeded_quota_is_told_from_a_full_disk(tmp_path: Path) -> None:
    error = disk_error(OSError(errno.EDQUOT, "Disk quota exceeded"), tmp_path)
    assert isinstance(error, StoreUnavailableError)
    assert f"quota exceeded writing below {tmp_path}" in str(error)


def test_a_root_that_is_no_directory_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = open_store(tmp_path / "file")
    with pytest.raises(StoreError, match="file"):
        store.put_bytes(b"", "a")
    with pytest.raises(StoreError, match="file"):
        store.scratch("p")
    assert list(store.list("a")) == []


def test_a_link_inside_a_local_store_does_not_lead_out_of_it(tmp_path: Path) -> None:
    store = open_store(tmp_path / "root")
    store.put_bytes(b"", "a/b")
    (tmp_path / "root" / "out").symlink_to(tmp_path)
    (tmp_path / "secret").write_text("secret")
    for attempt in (
        lambda: store.open("out/secret"),
        lambda: store.put_bytes(b"", "out/secret"),
        lambda: store.delete("out/secret"),
        lambda: store.manifest("out"),
    ):
        with pytest.raises(StoreError, match="leads out"):
            attempt()
    assert [info.name for info in store.list()] == ["a/b"]


def test_a_local_put_over_other_files_is_refused(tmp_path: Path, large: Path) -> None:
    store = open_store(tmp_path / "root")
    store.put_bytes(b"mine", "p/x")
    with pytest.raises(ArtifactExistsError, match="holds other files"):
        store.put_dir(large, "p")
    assert all_files(tmp_path / "root") == ["p/x"]


KILLED = """
import os, signal, sys
from pathlib import Path
import mloc_tasks.artifacts.{module} as module
def die(*_, **__): os.kill(os.getpid(), signal.SIGKILL)
module.{target} = die
from mloc_tasks.artifacts import open_store
open_store(sys.argv[1]).put_dir(Path(sys.argv[2]), "run/p")
"""


def test_a_killed_put_shows_nothing(store: ArtifactStore, large: Path, tmp_path: Path) -> None:
    # Killed when all files are there and only the manifest is missing.
    local = store.url.startswith("file:")
    script = KILLED.format(module="local" if local else "s3", target="Manifest")
    killed = subprocess.run([sys.executable, "-c", script, store.url, large], timeout=60)
    assert killed.returncode == -signal.SIGKILL
    for prefix in ("", "run", "run/p", "run/p/a-small.txt"):
        assert list(store.list(prefix)) == []
    assert store.manifest("run/p") is None
    with pytest.raises(ArtifactNotFoundError):
        store.open("run/p/a-small.txt")
    with pytest.raises(ArtifactNotFoundError):
        store.copy("run/p/a-small.txt", "x")
    # What remains is not in the way of others, and delete removes it.
    store.put_bytes(b"1", "run/other")
    assert [info.name for info in store.list()] == ["run/other"]
    store.delete("run")
    store.put_dir(large, "run/p")
    assert len(list(store.list("run"))) == 7


def test_a_put_that_fails_half_way_can_be_repeated(
    store: ArtifactStore, large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        for module in ("local", "s3"):
            patch.setattr(f"mloc_tasks.artifacts.{module}.each", fail)
        for move in (False, True):
            with pytest.raises(StoreUnavailableError, match="Input/output error"):
                store.put_dir(large, "p", move=move)
    assert list(store.list()) == []
    assert len(all_files(large)) == 7
    store.put_dir(large, "p")
    assert len(list(store.list())) == 7


def silent_server(*, listening: bool) -> socket.socket:
    """Accepts connections and never says a word, as a full store does; or refuses them, on a port that nobody gets."""
    server = socket.socket()
    server.bind(("127.0.0.1", 0))
    if listening:
        server.listen(64)
    return server


@pytest.mark.usefixtures("moto_credentials")
@pytest.mark.parametrize("listening", [False, True])
def test_a_store_that_does_not_answer_is_given_up(large: Path, tmp_path: Path, listening: bool) -> None:
    server = silent_server(listening=listening)
    endpoint = f"http://127.0.0.1:{server.getsockname()[1]}"
    store = open_store("s3://bucket/root", endpoint_url=endpoint, connect_timeout=0.3, read_timeout=0.3, attempts=1)
    for attempt in (
        lambda: store.put_dir(large, "p"),
        lambda: store.put_bytes(b"", "a"),
        lambda: store.put_file(large / "weights-0.bin", "a"),
        lambda: store.get_dir("p", tmp_path / "target"),
        lambda: store.open("a"),
        lambda: list(store.list()),
        lambda: store.delete("a"),
    ):
        with pytest.raises(StoreUnavailableError, match="does not answer") as caught:
            attempt()
        assert "endpoint URL" in caught.value.hint
    server.close()


class StallingGateway(BaseHTTPRequestHandler):
    """Serves the claim and then takes no data any more; a fake, because no real server can be filled in seconds."""

    protocol_version = "HTTP/1.1"
    requests: ClassVar[list[str]] = []
    stop: ClassVar[threading.Event] = threading.Event()

    def do_PUT(self) -> None:
        self.requests.append(f"PUT {self.path}")
        if "claim" not in self.path:
            self.stop.wait(30)
        self.answer(200)

    def do_HEAD(self) -> None:
        self.answer(404)

    def do_DELETE(self) -> None:
        self.requests.append(f"DELETE {self.path}")
        self.stop.wait(30)
        self.answer(204)

    do_POST = do_DELETE

    def answer(self, status: int) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.usefixtures("moto_credentials")
def test_a_full_server_that_hangs_ends_in_an_error_and_keeps_the_claim(large: Path) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), StallingGateway)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    store = open_store("s3://bucket/root", endpoint_url=endpoint, connect_timeout=0.5, read_timeout=0.5, attempts=2)
    try:
        with pytest.raises(StoreUnavailableError, match="does not answer"):
            store.put_dir(large, "p")
        assert not any("DELETE" in request and "claim" in request for request in StallingGateway.requests)
    finally:
        StallingGateway.stop.set()
        server.shutdown()
        server.server_close()


def test_a_missing_bucket_and_missing_rights_say_what_to_do(
    moto_store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StoreError, match="bucket does not exist") as caught:
        open_store("s3://no-such-bucket-here/x").put_bytes(b"", "a")
    assert not caught.value.retryable
    assert "create it" in caught.value.hint
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(StoreError, match="credentials") as caught:
        open_store(moto_store_url).put_bytes(b"", "a")
    assert "AWS_ACCESS_KEY_ID" in caught.value.hint


def test_an_object_replaced_under_a_reader_is_noticed(moto_store_url: str) -> None:
    store = open_store(moto_store_url)
    store.put_bytes(bytes(3 * MIB), "a")
    with store.open("a") as stream:
        stream.read(10)
        store.put_bytes(b"1" * (3 * MIB), "a")
        stream.seek(2 * MIB)
        with pytest.raises(StoreError, match="replaced while it was being read"):
            stream.read()


def test_urls_of_unknown_kinds_are_refused(tmp_path: Path) -> None:
    for url in ("ftp://host/x", "s3://", "file://otherhost/x"):
        with pytest.raises(StoreError):
            open_store(url)
        with pytest.raises(StoreError):
            open_url(url)
    with pytest.raises(ArtifactNotFoundError):
        open_url(tmp_path / "absent")
    with pytest.raises(StoreError):
        open_url(tmp_path)


def test_importing_the_package_does_not_import_boto3() -> None:
    script = "import sys, mloc_tasks.artifacts; sys.exit(bool({'boto3', 'botocore', 'zstandard'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", script], check=True)
