"""A web server that nobody should trust: bodies without end, listings without end, lies about lengths."""

from __future__ import annotations

import contextlib
import gzip
import threading
from http.server import BaseHTTPRequestHandler

BLOCK = b"0" * (1 << 16)


class HostileServer:
    """What is below `/NAME` is answered by the method `NAME`."""

    def __init__(self) -> None:
        self.sent = 0
        self.asked = 0
        self._pause = threading.Event()

    def answer(self, handler: BaseHTTPRequestHandler, body: bool) -> None:
        """Answer one request."""
        self.asked += 1
        name = handler.path.strip("/").partition("/")[0].partition("?")[0].partition(".")[0]
        with contextlib.suppress(ConnectionError):
            getattr(self, name)(handler, body)

    def endless(self, handler: BaseHTTPRequestHandler, body: bool) -> None:
        """No length, and no end."""
        self._head(handler)
        while body:
            self._send(handler, BLOCK)

    def endless_range(self, handler: BaseHTTPRequestHandler, body: bool) -> None:
        """The range that was asked for, and everything behind it."""
        self._head(handler, 206, Content_Range="bytes 4-9/1000000000", Accept_Ranges="bytes")
        while body:
            self._send(handler, BLOCK)

    def other_range(self, handler: BaseHTTPRequestHandler, body: bool) -> None:
        """Another range than was asked for."""
        self._head(handler, 206, Content_Range="bytes 0-5/10", Content_Length="6")
        self._send(handler, b"012345" if body else b"")

    def no_range(self, handler: BaseHTTPRequestHandler, body: bool) -> None:
        """All of it, whatever was asked for."""
        self._head(handler, Content_Length="10")
        self._send(handler, b"0123456789" if body else b"")

    def packed(self, handler: BaseHTTPRequestHandler, body: bool) -> None:
        """A gigabyte, packed, to whoever asks for plain bytes."""
        data = gzip.compress(b"0" * (1 << 24)) * 64
        self._head(handler, Content_Length=str(len(data)), Content_Encoding="gzip")
        self._send(handler, data if body else b"")

    def drips(self, handler: BaseHTTPRequestHandler, body: bool) -> None:
        """A byte now and then."""
        self._head(handler, Content_Length="1000")
        while body:
            self._send(handler, b"0")
            self._pause.wait(0.02)  # tests replace `time.sleep`

    def broken_chunks(self, handler: BaseHTTPRequestHandler, body: bool) -> None:
        """Lengths of chunks where their bytes should be, and then the connection ends."""
        self._head(handler, Transfer_Encoding="chunked")
        self._send(handler, b"5\r\n" * 3000 if body else b"0\r\n\r\n")
        handler.close_connection = True

    def too_short(self, handler: BaseHTTPRequestHandler, body: bool) -> None:
        """Less than was promised."""
        self._head(handler, Content_Length="1000")
        self._send(handler, b"0" * 10 if body else b"")
        handler.close_connection = True

    def circle(self, handler: BaseHTTPRequestHandler, body: bool) -> None:
        """An address that leads to itself."""
        self._head(handler, 302, Location=handler.path, Content_Length="0")

    def nested(self, handler: BaseHTTPRequestHandler, body: bool) -> None:
        """Each folder has one more in it, by a new name."""
        self._page(handler, body, [f"{self.asked}/", "a.jpg"])

    def itself(self, handler: BaseHTTPRequestHandler, body: bool) -> None:
        """A folder that links to itself in every way, and to one file."""
        here = f"http://{handler.headers['Host']}/itself"
        links = [
            "./",
            "././",
            "",
            "#top",
            "?C=N;O=D",
            "../",
            "x/../",
            "/itself/",
            here,
            f"{here}/",
            "./a.jpg",
            "mailto:me",
        ]
        self._page(handler, body, links)

    def crowded(self, handler: BaseHTTPRequestHandler, body: bool) -> None:
        """More files than anybody has."""
        self._page(handler, body, [f"{number}.jpg" for number in range(5000)])

    def long_page(self, handler: BaseHTTPRequestHandler, body: bool) -> None:
        """A page without end."""
        self._head(handler, Content_Type="text/html")
        while body:
            self._send(handler, b"<a " * 10_000)

    def _page(self, handler: BaseHTTPRequestHandler, body: bool, links: list[str]) -> None:
        data = "".join(f'<a href="{link}">x</a>' for link in links).encode()
        self._head(handler, Content_Type="text/html", Content_Length=str(len(data)))
        self._send(handler, data if body else b"")

    def _head(self, handler: BaseHTTPRequestHandler, status: int = 200, **headers: str) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()

    def _send(self, handler: BaseHTTPRequestHandler, data: bytes) -> None:
        handler.wfile.write(data)
        self.sent += len(data)
