"""A web server on loopback whose files change, hang and fail when a test says so."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class FileServer:
    """Serves `files` (path -> content), each with an ETag of its content, as `url + path`.

    Attributes:
        sizes_known: False leaves Content-Length out.
        gate: clear it, and every download stops in the middle until it is set.
        status: answers that code to everything, when not 0.
    """

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.files: dict[str, bytes] = {}
        self.sizes_known = True
        self.status = 0
        self.gate = threading.Event()
        self.gate.set()


@contextmanager
def file_server() -> Iterator[FileServer]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if server.status or path not in server.files:
                self.send_error(server.status or 404)
                return
            content = server.files[path]
            self.send_response(200)
            if server.sizes_known:
                self.send_header("Content-Length", str(len(content)))
            self.send_header("ETag", f'"{hashlib.md5(content, usedforsecurity=False).hexdigest()}"')
            self.end_headers()
            half = len(content) // 2
            with suppress(ConnectionError):  # the client wanted the headers only
                self.wfile.write(content[:half])
                server.gate.wait()
                self.wfile.write(content[half:])

        def log_message(self, *_: object) -> None:
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.daemon_threads = True
    server = FileServer(httpd.server_port)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.gate.set()
        httpd.shutdown()
        httpd.server_close()
