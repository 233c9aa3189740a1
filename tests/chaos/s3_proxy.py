"""A small HTTP proxy before an S3 server that can be told to answer 503, as an overloaded store does."""

from __future__ import annotations

import http.client
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

UNAVAILABLE = b"<Error><Code>ServiceUnavailable</Code><Message>Please reduce your request rate.</Message></Error>"
HOP_BY_HOP = {"connection", "expect", "host", "transfer-encoding", "content-length", "keep-alive"}


class FaultyProxy:
    """Forwards to `upstream` (http://host:port) until `fail()`, and again after `recover()`."""

    def __init__(self, upstream: str) -> None:
        self.upstream = urlsplit(upstream)
        self.refused = 0
        self._failing: re.Pattern[str] | None = None
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_for(self))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def fail(self, path: str = "") -> None:
        """Answer every request with 503 from now on whose path the regular expression is found in."""
        self._failing = re.compile(path)

    def recover(self) -> None:
        self._failing = None

    def fails(self, path: str) -> bool:
        return self._failing is not None and self._failing.search(path) is not None

    @contextmanager
    def running(self) -> Iterator[FaultyProxy]:
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()


def _handler_for(proxy: FaultyProxy) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if proxy.fails(self.path):
                proxy.refused += 1
                self._answer(503, [("Content-Type", "application/xml")], UNAVAILABLE)
                return
            kept = {name: value for name, value in self.headers.items() if name.lower() not in HOP_BY_HOP}
            upstream = http.client.HTTPConnection(proxy.upstream.netloc, timeout=30)
            try:
                upstream.request(self.command, self.path, body=body, headers=kept)
                response = upstream.getresponse()
                self._answer(response.status, response.getheaders(), response.read())
            finally:
                upstream.close()

        def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
            length = next((value for name, value in headers if name.lower() == "content-length"), "")
            self.send_response_only(status)
            for name, value in headers:
                if name.lower() not in HOP_BY_HOP:
                    self.send_header(name, value)
            # The answer to HEAD tells the object's length, and has no body.
            self.send_header("Content-Length", length if self.command == "HEAD" and length else str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _forward

        def log_message(self, *args: object) -> None:
            return

    return Handler
