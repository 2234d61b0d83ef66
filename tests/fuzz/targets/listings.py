"""What servers answer: pages that list a folder, and whole answers with their headers; and names of files."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote

from tests.fuzz.target import Files, Target
from tests.fuzz.targets.labels import ALL as _LABELS
from tests.fuzz.targets.media import EMPTY, read_all
from tests.make_media import jpeg_bytes, make_scene

_PAGE = b"""<!DOCTYPE html><html><head><title>Index of /</title></head><body><h1>Index of /</h1><pre>
<a href="../">../</a>
<a href="one.jpg">one.jpg</a>   2026-01-01 10:00  4K
<a href="two%20words.jpg">two words.jpg</a>   2026-01-01 10:00  4K
<a href="sub/">sub/</a>   2026-01-01 10:00  -
</pre></body></html>
"""
_ANSWER = (
    b"HTTP/1.1 200 OK\r\nServer: made\r\nContent-Type: image/jpeg\r\nContent-Length: 11\r\nAccept-Ranges: bytes\r\n"
    b'ETag: "one"\r\nConnection: close\r\n\r\nhello world'
)
_CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"
)
_MOST_BYTES = 1 << 20


def _pages() -> list[Files]:
    picture = jpeg_bytes(make_scene(24, 32)[0])
    return [{"index.html": _PAGE, "sub/index.html": _PAGE, "one.jpg": picture, "two words.jpg": picture}]


def _answers() -> list[Files]:
    return [{"answer.txt": _ANSWER}, {"answer.txt": _CHUNKED}]


@contextmanager
def _server(folder: Path) -> Iterator[str]:
    """Serves a folder, or one answer for everything; a connection an answer. Waiting for another attempt costs nothing
    while it runs."""
    from trackmill.pipeline.storage import http_files, retries

    http_files.ANSWER_S = 1  # a minute tells no more
    listener = socket.create_server(("127.0.0.1", 0))
    whole = folder / "answer.txt"

    def answer() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(5)
                try:
                    request = connection.recv(65536)
                    connection.sendall(whole.read_bytes() if whole.exists() else _page(folder, request))
                except OSError:
                    continue

    threading.Thread(target=answer, daemon=True).start()
    pause, retries.pause = retries.pause, lambda _: None
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)  # else the thread waits in `accept` for good
        listener.close()
        retries.pause = pause


def _page(folder: Path, request: bytes) -> bytes:
    name = unquote(request.split(b" ")[1].decode("latin-1")).partition("?")[0].strip("/") if b" " in request else ""
    path = folder / name
    try:
        body = (path / "index.html" if path.is_dir() else path).read_bytes()
    except (OSError, ValueError):
        return b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    head = b"" if request.startswith(b"HEAD") else body
    kind = b"text/html" if path.is_dir() else b"image/jpeg"
    return (
        b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % (kind, len(body))
        + head
    )


def _list(folder: Path) -> object:
    from trackmill.pipeline.storage.list_files import list_files

    with _server(folder) as address:
        return [(file.uri.replace(address, ""), file.size) for file in list_files(f"{address}/")]


def _fetch(folder: Path) -> object:
    from trackmill.pipeline.storage.files import read_bytes

    with _server(folder) as address:
        return read_bytes(f"{address}/one.jpg", max_bytes=_MOST_BYTES)


def _named() -> list[Files]:
    labelled = {target.name: target for target in _LABELS}
    made = [files for name in ("sa1b-json", "sav-json", "sav-val", "mot") for files in labelled[name].seeds()]
    return [*made, {"pictures/one.jpg": jpeg_bytes(make_scene(24, 32)[0])}]


def _read_named(folder: Path) -> object:
    return read_all(folder, "auto")


ALL = (
    Target(name="http-listing", seeds=_pages, run=_list, mutated=("*.html",), about=("127.0.0.1",), share=60),
    Target(name="http-answer", seeds=_answers, run=_fetch, about=("one.jpg", "127.0.0.1"), share=60),
    Target(name="names", seeds=_named, run=_read_named, about=(EMPTY,), rename=1.0, share=150),
)
