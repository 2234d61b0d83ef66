"""One file behind HTTP is listed without being fetched; what the server refuses is a sentence."""

from __future__ import annotations

import socket

import pytest

from tests.storage.file_server import FileServer, serving
from trackmill.pipeline.storage import retries
from trackmill.pipeline.storage.files import read_bytes
from trackmill.pipeline.storage.list_files import list_files
from trackmill.schemas.errors import StorageError

pytest.importorskip("aiohttp")


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "pause", lambda seconds: None)


def test_a_lone_file_is_listed_by_its_length_alone() -> None:
    with serving(FileServer(content=b"x" * 1000), "clip.mp4") as server:
        assert [(file.uri, file.size) for file in list_files(server.url)] == [(server.url, 1000)]
        assert server.sent == 0, "a listing fetches nothing"
        assert read_bytes(server.url) == b"x" * 1000


def test_a_file_that_is_not_there() -> None:
    with serving(FileServer(content=b"", status=404), "clip.mp4") as server:
        for look in (list_files, read_bytes):
            with pytest.raises(FileNotFoundError, match=r"clip\.mp4\?\.\.\.: no such file or folder"):
                look(f"{server.url}?X-Amz-Signature=secret")
            with pytest.raises(FileNotFoundError) as raised:
                look(f"{server.url}?X-Amz-Signature=secret")
            assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("status", "kind", "message"),
    [
        (500, StorageError, r"clip\.mp4: gave up after 5 attempts: .*HTTP 500"),
        (403, PermissionError, r"clip\.mp4: the server refuses \(HTTP 403\)"),
    ],
)
def test_a_server_that_fails(status: int, kind: type[Exception], message: str) -> None:
    with serving(FileServer(content=b"", status=status), "clip.mp4") as server, pytest.raises(kind, match=message):
        list_files(server.url)


def test_nobody_listens() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: nobody else gets the port meanwhile
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/clip.mp4"
        with pytest.raises(StorageError, match=r"clip\.mp4: gave up after 5 attempts: .*Connect"):
            list_files(url)
