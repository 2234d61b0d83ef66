"""Objects that are read whole: one request each, however little is known of them, and nothing missing unnoticed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.object_store import ObjectStore, object_store
from tests.storage.file_server import FileServer, serving
from trackmill.pipeline.storage import retries, urls
from trackmill.pipeline.storage.files import read_bytes
from trackmill.pipeline.storage.limits import FileTooLarge
from trackmill.pipeline.storage.publish import publish_bytes
from trackmill.schemas.errors import StorageError

DATA = bytes(range(256)) * 5000


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    monkeypatch.setattr(retries, "pause", lambda seconds: None)
    with object_store() as store:
        store.objects["b/x.jpg"] = DATA
        store.objects["b/nothing"] = b""
        yield store


def test_one_request_and_no_question_before_it(store: ObjectStore) -> None:
    assert read_bytes("s3://b/x.jpg") == DATA
    assert read_bytes("s3://b/nothing") == b""
    assert read_bytes("s3://b/x.jpg", 300, 4) == DATA[300:304]
    assert store.counts == {"GET": 3}


@pytest.mark.parametrize("listed", [None, len(DATA), 3])
def test_a_body_that_is_cut_is_asked_for_again(store: ObjectStore, listed: int | None) -> None:
    store.cuts = [1000, 0]
    store.refusals = [500]
    assert read_bytes("s3://b/x.jpg", size=listed) == DATA
    assert not store.cuts and not store.refusals


def test_too_large_is_said_before_the_bytes_come(store: ObjectStore) -> None:
    with pytest.raises(FileTooLarge, match=r"s3://b/x.jpg: 1280000 bytes, more than the limit of 1000"):
        read_bytes("s3://b/x.jpg", max_bytes=1000)
    assert store.counts == {"GET": 1}


def test_what_is_missing_is_named(store: ObjectStore) -> None:
    with pytest.raises(FileNotFoundError, match=r"b/y\.jpg"):
        read_bytes("s3://b/y.jpg")
    assert store.counts["HEAD"] == 0


def test_a_store_without_a_length_is_believed_where_the_listing_agrees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "pause", lambda seconds: None)
    url = "memory://storage/sizes"
    publish_bytes(url, b"0123456789")
    fs, _ = urls.filesystem(url)
    asked, info = [], fs.info
    monkeypatch.setattr(fs, "info", lambda path: asked.append(path) or info(path))
    assert read_bytes(url, size=10) == b"0123456789" and not asked
    assert read_bytes(url, size=7) == b"0123456789" and len(asked) == 1, "it was replaced since it was listed"
    assert read_bytes(url, size=7, max_bytes=10) == b"0123456789"
    with pytest.raises(FileTooLarge, match="10 bytes, more than the limit of 9"):
        read_bytes(url, size=20, max_bytes=9)
    monkeypatch.setattr(fs, "cat_file", lambda path: b"0123")
    with pytest.raises(StorageError, match="4 of 10 bytes arrived"):
        read_bytes(url, size=10)


def test_a_web_server_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("aiohttp")
    monkeypatch.setattr(retries, "pause", lambda seconds: None)
    with serving(FileServer(content=DATA), "x.jpg") as server:
        assert read_bytes(server.url) == DATA
        server.cuts = [700]
        assert read_bytes(server.url) == DATA
        assert server.begins == [0, 0, 0]
        with pytest.raises(FileTooLarge, match="1280000 bytes, more than the limit of 1000"):
            read_bytes(server.url, max_bytes=1000)
        for status, kind, said in (
            (404, FileNotFoundError, "no such file"),
            (403, PermissionError, "refuses .HTTP 403"),
        ):
            server.status = status
            with pytest.raises(kind, match=said):
                read_bytes(server.url)
        server.status = 503
        with pytest.raises(StorageError, match="gave up after 5 attempts: ConnectionError: HTTP 503"):
            read_bytes(server.url)
