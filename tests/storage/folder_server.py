"""A folder behind HTTP on this machine, with pages that list it, ranges, and the faults of real servers."""

from __future__ import annotations

import html
import re
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from tests.storage.file_server import listening

MOVED = "/moved"
"""What lies below it is answered by a redirect to the same path without it."""


@dataclass(kw_only=True)
class FolderServer:
    """What is served, and how badly.

    Args:
        root: the folder.
        fail_once: whether the first request for each path is answered by 500.
        refuse: paths that are answered by 403.
        pause_s: seconds before each answer.
        signature: what every request for a file has to bring along, as S3 wants it; "" for nothing.
        url: where the root is, without a slash at the end.
        asked: requests for each path, failed ones too.
        sent: bytes of all files that were sent.
    """

    root: Path
    fail_once: bool = False
    refuse: set[str] = field(default_factory=set)
    pause_s: float = 0.0
    signature: str = ""
    url: str = ""
    asked: Counter[str] = field(default_factory=Counter)
    sent: int = 0

    def answer(self, handler: BaseHTTPRequestHandler, body: bool) -> None:
        """Answer one request."""
        path = unquote(urlsplit(handler.path).path)
        self.asked[path] += 1
        time.sleep(self.pause_s)
        target = self.root / path.removeprefix(MOVED).lstrip("/")
        if self.fail_once and self.asked[path] == 1:
            self._empty(handler, 500)
        elif path in self.refuse or (target.is_file() and self.query not in handler.path):
            self._empty(handler, 403)
        elif not target.exists():
            self._empty(handler, 404)
        elif path.startswith(f"{MOVED}/"):
            self._empty(handler, 302, Location=quote(path.removeprefix(MOVED)))
        elif target.is_dir():
            names = sorted(f"{quote(each.name)}{'/' if each.is_dir() else self.query}" for each in target.iterdir())
            page = "".join(f'<a href="{name}">x</a>' for name in names)
            data = f"<html><title>{html.escape(path)}</title>{page}</html>".encode()
            self._send(handler, data, body, "text/html")
        else:
            self._file(handler, target.read_bytes(), body)

    @property
    def query(self) -> str:
        """What signs a URL of a file now; it begins with `?`."""
        return f"?X-Amz-Expires=60&X-Amz-Signature={self.signature}" if self.signature else ""

    def _file(self, handler: BaseHTTPRequestHandler, data: bytes, body: bool) -> None:
        asked = re.match(r"bytes=(\d+)-(\d*)$", handler.headers.get("Range", ""))
        part = data
        if asked:
            start, stop = int(asked[1]), int(asked[2]) + 1 if asked[2] else len(data)
            part = data[start:stop]
        self.sent += len(part) if body else 0
        extra = {"Content-Range": f"bytes {asked[1]}-{int(asked[1]) + len(part) - 1}/{len(data)}"} if asked else {}
        self._send(handler, part, body, "application/octet-stream", 206 if asked else 200, **extra)

    def _send(
        self,
        handler: BaseHTTPRequestHandler,
        data: bytes,
        body: bool,
        kind: str,
        status: int = 200,
        **headers: str,
    ) -> None:
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(data)), "Content-Type": kind, **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Accept-Ranges", "bytes")
        handler.end_headers()
        if body:
            handler.wfile.write(data)

    def _empty(self, handler: BaseHTTPRequestHandler, status: int, **headers: str) -> None:
        handler.send_response(status)
        for name, value in {"Content-Length": "0", **headers}.items():
            handler.send_header(name, value)
        handler.end_headers()


@contextmanager
def serving_folder(root: Path) -> Iterator[FolderServer]:
    """The server while it runs."""
    server = FolderServer(root=root)
    with listening(server) as address:
        server.url = address
        yield server
