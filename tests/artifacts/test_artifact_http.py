"""Reading over HTTP, from a real server on loopback that can be told to break off."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from mloc_tasks.artifacts import open_url
from mloc_tasks.errors import ArtifactNotFoundError, StoreError, StoreUnavailableError

DATA = b"".join(b"%07d\n" % i for i in range(400_000))  # 3.2 MB


class Files(BaseHTTPRequestHandler):
    """Paths say how to behave: /ranges, /plain, and with "-broken" only a third of what was promised arrives."""

    def do_GET(self) -> None:
        if self.path.strip("/").isdecimal():
            self.send_error(int(self.path.strip("/")))
            return
        start = 0
        if "ranges" in self.path:
            start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        body = DATA[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", '"1"')
        if "ranges" in self.path:
            self.send_header("Accept-Ranges", "bytes")
        self.end_headers()
        self.wfile.write(body[: len(DATA) // 3] if "broken" in self.path else body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Files)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()
    httpd.server_close()


@pytest.mark.parametrize("path", ["ranges", "plain", "ranges-broken"])
def test_a_file_is_read_whole_also_when_the_connection_breaks(server: str, path: str) -> None:
    with open_url(f"{server}/{path}") as stream:
        assert stream.read() == DATA


def test_a_break_that_cannot_be_mended_is_not_taken_for_the_end(server: str) -> None:
    with open_url(f"{server}/plain-broken") as stream, pytest.raises(StoreUnavailableError, match="stopped at byte"):
        stream.read()


def test_a_server_with_ranges_gives_a_seekable_file(server: str) -> None:
    with open_url(f"{server}/ranges") as stream:
        assert stream.seekable()
        stream.seek(-8, 2)
        assert stream.read() == b"0399999\n"
    with open_url(f"{server}/plain") as stream:
        assert not stream.seekable()


@pytest.mark.parametrize(
    ("status", "error"), [(404, ArtifactNotFoundError), (403, StoreError), (503, StoreUnavailableError)]
)
def test_refusals_are_told_apart(server: str, status: int, error: type[StoreError]) -> None:
    with pytest.raises(StoreError, match=str(status)) as caught:
        open_url(f"{server}/{status}")
    assert type(caught.value) is error


def test_a_server_that_is_not_there_may_come_back() -> None:
    with pytest.raises(StoreUnavailableError):
        open_url("http://127.0.0.1:9/x")
    with pytest.raises(StoreError):
        open_url("http://")
