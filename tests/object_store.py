"""A small object store on this machine that speaks as much of S3 as s3fs asks for, and counts every request.

Unlike moto it is fast, may hold objects of many gigabytes that are mostly nothing, and fails as it is told to.
"""

from __future__ import annotations

import bisect
import contextlib
import hashlib
import re
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from tests.s3_server import forget_connections

_BLOCK = 1 << 20
_ZEROS = bytes(_BLOCK)
_KEYS_A_PAGE = 1000
_MADE = "Mon, 01 Jan 2024 00:00:00 GMT"


@dataclass(frozen=True, slots=True)
class Sparse:
    """An object of which only some pieces are kept; the rest is zeros.

    Args:
        size: in bytes.
        pieces: (offset, bytes), in order, none over another.
    """

    size: int
    pieces: tuple[tuple[int, bytes], ...] = ()

    def read(self, begin: int, end: int) -> bytes:
        """Bytes `begin` to `end`."""
        data = bytearray(end - begin)
        first = max(0, bisect.bisect_right(self.pieces, begin, key=lambda piece: piece[0]) - 1)
        for offset, piece in self.pieces[first:]:
            if offset >= end:
                break
            cut = piece[max(0, begin - offset) : max(0, end - offset)]
            place = max(0, offset - begin)
            data[place : place + len(cut)] = cut
        return bytes(data)


@dataclass(kw_only=True)
class ObjectStore:
    """What is stored, and what was asked for.

    Args:
        objects: contents by `bucket/key`.
        url: where it is.
        counts: requests by kind: GET, HEAD, PUT, LIST, DELETE.
        sent: bytes of all bodies of GET.
        gets: of each GET the object and its first and last byte but one.
        heads: the object of each HEAD.
        cuts: after how many bytes the body of a GET ends, one entry a GET; what comes later is sent whole.
        refusals: statuses of the next GETs, instead of an answer.
    """

    objects: dict[str, bytes | Sparse] = field(default_factory=dict)
    url: str = ""
    counts: Counter[str] = field(default_factory=Counter)
    sent: int = 0
    gets: list[tuple[str, int, int]] = field(default_factory=list)
    heads: list[str] = field(default_factory=list)
    cuts: list[int] = field(default_factory=list)
    refusals: list[int] = field(default_factory=list)

    def environment(self) -> dict[str, str]:
        """What a process needs in order to find it."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "testing-only",
            "AWS_SECRET_ACCESS_KEY": "testing-only",
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def forget(self) -> None:
        """Begin to count anew."""
        self.counts.clear()
        self.gets.clear()
        self.heads.clear()
        self.sent = 0


def size_of(content: bytes | Sparse) -> int:
    """Bytes of an object."""
    return content.size if isinstance(content, Sparse) else len(content)


@contextlib.contextmanager
def object_store(environment: bool = True) -> Iterator[ObjectStore]:
    """An empty store while the context lasts.

    Args:
        environment: let `s3://` of this process, and of those that it starts, lead there meanwhile.
    """
    import pytest

    store, lock = ObjectStore(), threading.Lock()

    class Handler(_Handler):
        pass

    Handler.store, Handler.lock = store, lock
    server = _Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    store.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in store.environment().items() if environment else ():
                patch.setenv(name, value)
            forget_connections()
            yield store
    finally:
        forget_connections()
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # clients hang up when they have what they wanted


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    store: ObjectStore
    lock: threading.Lock

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        name, query = self._asked()
        if "/" not in name:
            self._count("LIST")
            self._list(name, query)
            return
        self._count("GET")
        store = self.store
        with self.lock:
            refusal = store.refusals.pop(0) if store.refusals else 0
            content = store.objects.get(name)
        if refusal or content is None:
            self._error(refusal or 404, "SlowDown" if refusal else "NoSuchKey")
            return
        whole = size_of(content)
        begin, end = 0, whole
        asked = re.match(r"bytes=(\d+)-(\d*)$", self.headers.get("Range", ""))
        if asked:
            begin = int(asked[1])
            end = min(whole, int(asked[2]) + 1) if asked[2] else whole
            if begin >= whole:
                self._error(416, "InvalidRange")
                return
        headers = {"ETag": _etag(content), "Accept-Ranges": "bytes", "Last-Modified": _MADE}
        if asked:
            headers["Content-Range"] = f"bytes {begin}-{end - 1}/{whole}"
        with self.lock:
            store.gets.append((name, begin, end))
            cut = store.cuts.pop(0) if store.cuts else end - begin
        self._head(206 if asked else 200, end - begin, headers)
        stop = min(end, begin + cut)
        for place in range(begin, stop, _BLOCK):
            piece = content[place : min(place + _BLOCK, stop)] if isinstance(content, bytes) else b""
            piece = piece or content.read(place, min(place + _BLOCK, stop))  # type: ignore[union-attr]
            self.wfile.write(piece)
            with self.lock:
                store.sent += len(piece)
        if stop < end:
            self.close_connection = True

    def do_HEAD(self) -> None:
        self._count("HEAD")
        name, _ = self._asked()
        with self.lock:
            self.store.heads.append(name)
            content = self.store.objects.get(name)
        if "/" not in name:
            self._head(200, 0)
        elif content is None:
            self._head(404, 0)
        else:
            self._head(200, size_of(content), {"ETag": _etag(content), "Last-Modified": _MADE})

    def do_PUT(self) -> None:
        self._count("PUT")
        name, _ = self._asked()
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if "aws-chunked" in self.headers.get("Content-Encoding", ""):
            body = _unchunked(body)
        if "/" in name:
            with self.lock:
                self.store.objects[name] = body
        self._head(200, 0, {"ETag": _etag(body)})

    def do_DELETE(self) -> None:
        self._count("DELETE")
        with self.lock:
            self.store.objects.pop(self._asked()[0], None)
        self._head(204, 0)

    def do_POST(self) -> None:
        self._count("POST")
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self._error(501, "NotImplemented")

    def _asked(self) -> tuple[str, dict[str, list[str]]]:
        parts = urlsplit(self.path)
        return unquote(parts.path).strip("/"), parse_qs(parts.query, keep_blank_values=True)

    def _count(self, kind: str) -> None:
        with self.lock:
            self.store.counts[kind] += 1

    def _list(self, bucket: str, query: Mapping[str, list[str]]) -> None:
        prefix = f"{bucket}/{query.get('prefix', [''])[0]}"
        delimiter = query.get("delimiter", [""])[0]
        most = int(query.get("max-keys", [str(_KEYS_A_PAGE)])[0])
        after = query.get("continuation-token", [""])[0]
        with self.lock:
            names = sorted(name for name in self.store.objects if name.startswith(prefix))
        files, folders = [], []
        for name in names:
            rest = name[len(prefix) :]
            if delimiter and delimiter in rest:
                folder = prefix + rest.partition(delimiter)[0] + delimiter
                if folder not in folders:
                    folders.append(folder)
            else:
                files.append(name)
        files = files[bisect.bisect_right(files, after) :]
        page, more = files[:most], len(files) > most
        body = ['<?xml version="1.0" encoding="UTF-8"?><ListBucketResult>']
        body.append(f"<Name>{bucket}</Name><IsTruncated>{str(more).lower()}</IsTruncated>")
        body.append(f"<KeyCount>{len(page) + len(folders)}</KeyCount>")
        if more:
            body.append(f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>")
        for name in page:
            content = self.store.objects[name]
            body.append(
                f"<Contents><Key>{escape(name.partition('/')[2])}</Key><Size>{size_of(content)}</Size>"
                f"<ETag>{escape(_etag(content))}</ETag><LastModified>2024-01-01T00:00:00.000Z</LastModified></Contents>"
            )
        body += [
            f"<CommonPrefixes><Prefix>{escape(folder.partition('/')[2])}</Prefix></CommonPrefixes>"
            for folder in ([] if after else folders)
        ]
        data = "".join([*body, "</ListBucketResult>"]).encode()
        self._head(200, len(data), {"Content-Type": "application/xml"})
        self.wfile.write(data)

    def _error(self, status: int, code: str) -> None:
        data = f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()
        self._head(status, len(data), {"Content-Type": "application/xml"})
        self.wfile.write(data)

    def _head(self, status: int, length: int, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()


def _etag(content: bytes | Sparse) -> str:
    text = content[:_BLOCK] + str(len(content)).encode() if isinstance(content, bytes) else repr(content.size).encode()
    return f'"{hashlib.md5(text, usedforsecurity=False).hexdigest()}"'


def _unchunked(body: bytes) -> bytes:
    """The contents of a body that is sent in signed chunks: `LENGTH;...` and a line break before each."""
    data, place = bytearray(), 0
    while True:
        line = body.index(b"\r\n", place)
        length = int(body[place:line].partition(b";")[0], 16)
        if not length:
            return bytes(data)
        data += body[line + 2 : line + 2 + length]
        place = line + 2 + length + 2
