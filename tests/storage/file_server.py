"""One file behind HTTP on this machine, from a server that counts, and that fails as it is told to."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Protocol


@dataclass(kw_only=True)
class FileServer:
    """What is served, and what happened.

    Args:
        content: the file.
        etag: as sent, with its quotation marks; "" for none.
        ranges: whether ranges are understood; otherwise every answer is the whole file.
        cuts: after how many bytes the connection ends, one entry a GET; what comes later is sent whole.
        status: of every answer.
        change: content and ETag that take the place of these after the first GET.
        url: where it is.
        begins: first byte of the answer to each GET.
        sent: bytes sent in all bodies.
    """

    content: bytes
    etag: str = '"one"'
    ranges: bool = True
    cuts: list[int] = field(default_factory=list)
    status: int = 200
    change: tuple[bytes, str] | None = None
    url: str = ""
    begins: list[int] = field(default_factory=list)
    sent: int = 0

    def answer(self, handler: BaseHTTPRequestHandler, body: bool) -> None:
        """Answer one request."""
        if self.status != 200:
            handler.send_response(self.status)
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        start = self._start(handler) if body else 0
        content, whole = self.content[start:], len(self.content)
        handler.send_response(206 if start else 200)
        handler.send_header("Content-Length", str(len(content)))
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{whole - 1}/{whole}")
        if self.etag:
            handler.send_header("ETag", self.etag)
        handler.end_headers()
        if not body:
            return
        cut = self.cuts.pop(0) if self.cuts else whole
        self.begins.append(start)
        self.sent += len(content[:cut])
        if self.change is not None:
            (self.content, self.etag), self.change = self.change, None
        handler.wfile.write(content[:cut])
        if cut < len(content):
            handler.close_connection = True

    def _start(self, handler: BaseHTTPRequestHandler) -> int:
        asked = re.match(r"bytes=(\d+)-$", handler.headers.get("Range", ""))
        condition = handler.headers.get("If-Range", self.etag)
        return int(asked[1]) if asked and self.ranges and condition == self.etag else 0


class Answers(Protocol):
    """Answers one request, with or without a body."""

    def answer(self, handler: BaseHTTPRequestHandler, body: bool) -> None: ...


class _QuietServer(ThreadingHTTPServer):
    """Says nothing of clients that hang up, as those that read to a limit do."""

    def handle_error(self, request: object, client_address: object) -> None:
        pass


@contextmanager
def listening(server: Answers) -> Iterator[str]:
    """A server on this machine that gives one request after the other to `server`; its address, without a path."""
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            with lock:
                server.answer(self, body=True)

        def do_HEAD(self) -> None:
            with lock:
                server.answer(self, body=False)

        def log_message(self, format: str, *args: object) -> None:
            pass

    http = _QuietServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{http.server_address[1]}"
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


@contextmanager
def serving(server: FileServer, name: str = "mine.pth") -> Iterator[FileServer]:
    """The server while it runs; its address ends in `name`."""
    with listening(server) as address:
        server.url = f"{address}/{name}"
        yield server
