"""A web server on this machine for tests of downloads: whole, cut off, refused, with and without support for ranges."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server(ThreadingHTTPServer):
    """Serves `files`, path -> content; the next answers can be cut off, refused, or without support for ranges."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.cut_after: int | None = None
        self.status: int | None = None
        self.ranges = True
        self.asked: list[str | None] = []
        """The range of every GET."""
        self.paths: list[str] = []
        """Of every GET."""
        self.headers: Callable[[str, bytes], dict[str, str]] = lambda path, content: {}
        super().__init__(("127.0.0.1", 0), Handler)

    def at(self, path: str) -> str:
        """The whole address of a path."""
        return f"http://127.0.0.1:{self.server_address[1]}{path}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.paths.append(self.path)
        self.server.asked.append(self.headers.get("Range"))
        self.answer(with_body=True)

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def answer(self, with_body: bool) -> None:
        server, wanted = self.server, self.headers.get("Range")
        status = server.status or (None if self.path in server.files else 404)
        if status is not None:
            self.send_error(status)
            return
        content = server.files[self.path]
        start, total = 0, len(content)
        if wanted and server.ranges:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            self.send_response(206 if start < total else 416)
            self.send_header(
                "Content-Range", f"bytes {start}-{total - 1}/{total}" if start < total else f"bytes */{total}"
            )
        else:
            self.send_response(200)
        for name, value in server.headers(self.path, content).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if with_body:
            self.wfile.write(content[start:][: server.cut_after])

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def serving(files: dict[str, bytes]) -> Iterator[Server]:
    """Runs a server until the end of the block."""
    with Server(files) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
