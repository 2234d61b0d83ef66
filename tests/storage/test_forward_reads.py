"""Remote files that are read forward: few requests, the right bytes through every fault, little memory."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from tests.object_store import ObjectStore, Sparse, object_store
from tests.storage.file_server import FileServer, serving
from trackmill.pipeline.storage import forward_reads, retries
from trackmill.pipeline.storage.forward_reads import FileChanged, ForwardFile, remote_version
from trackmill.pipeline.storage.publish import publish_bytes

DATA = random.Random(0).randbytes(5_000_000)


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    monkeypatch.setattr(retries, "pause", lambda seconds: None)
    with object_store() as store:
        store.objects["b/x.tar"] = DATA
        yield store


def read_here_and_there(handle: ForwardFile, data: bytes, seed: int = 0) -> None:
    """Small pieces forward, now and then a larger one and a look back."""
    drawn = random.Random(seed)
    place = 0
    while place < len(data):
        length = drawn.choice([1, 512, 512, 512, 70_000, 1 << 20])
        handle.seek(place)
        assert handle.read(length) == data[place : place + length]
        if drawn.random() < 0.2:
            back = max(0, place - drawn.choice([10, 100_000]))
            handle.seek(back)
            assert handle.read(600) == data[back : back + 600]
        place += drawn.choice([1, 512, 5000, 300_000])
    handle.seek(0, 2)
    assert handle.read(1) == b"" and handle.tell() == len(data)


def test_one_request_for_all_of_it(store: ObjectStore) -> None:
    with ForwardFile("s3://b/x.tar", len(DATA)) as handle:
        read_here_and_there(handle, DATA)
    assert store.counts == {"GET": 1}


def test_a_connection_that_breaks_goes_on_where_it_stopped(store: ObjectStore) -> None:
    store.cuts = [700_000, 0, 10, 1_300_000]
    store.refusals = [503]
    with ForwardFile("s3://b/x.tar", len(DATA)) as handle:
        read_here_and_there(handle, DATA)
    begins = [begin for _, begin, _ in store.gets]
    assert begins == sorted(begins) and len(begins) == 5 and not store.refusals
    assert store.sent < 1.1 * len(DATA)


def test_a_long_gap_is_not_fetched(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    size = 40 << 30
    pieces = tuple((place << 30, bytes([place]) * 1024) for place in range(40))
    store.objects["b/videos.tar"] = Sparse(size, pieces)
    with ForwardFile("s3://b/videos.tar", size) as handle:
        for place, data in pieces:
            handle.seek(place)
            assert handle.read(512) == data[:512]
    assert len(store.gets) == 40
    assert sum(end - begin for _, begin, end in store.gets[1:]) <= 39 * (64 << 10)


def test_what_follows_a_gap_closely_is_streamed_again(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forward_reads, "SKIP_BYTES", 500_000)
    with ForwardFile("s3://b/x.tar", len(DATA)) as handle:
        for place in (0, 2_000_000, *range(2_100_000, len(DATA), 100_000)):
            handle.seek(place)
            assert handle.read(1000) == DATA[place : place + 1000]
    assert len(store.gets) == 3, store.gets


def test_a_file_that_is_replaced_is_noticed(store: ObjectStore) -> None:
    before = remote_version("s3://b/x.tar")
    assert before.size == len(DATA) and before.mark
    store.objects["b/x.tar"] = DATA[:-1]
    assert remote_version("s3://b/x.tar") != before
    with ForwardFile("s3://b/x.tar", len(DATA)) as handle, pytest.raises(OSError, match="it changed while it was read"):
        handle.read(10)


def test_a_store_without_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forward_reads, "PIECE_BYTES", 300_000)
    publish_bytes("memory://storage/x.tar", DATA)
    with ForwardFile("memory://storage/x.tar", len(DATA)) as handle:
        read_here_and_there(handle, DATA, 1)


@pytest.mark.parametrize("ranges", [True, False])
def test_a_web_server_with_ranges_and_without(ranges: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("aiohttp")
    monkeypatch.setattr(retries, "pause", lambda seconds: None)
    with serving(FileServer(content=DATA, ranges=ranges, cuts=[900_000, 100]), "x.tar") as server:
        with ForwardFile(server.url, remote_version(server.url).size) as handle:
            read_here_and_there(handle, DATA)
        assert len(server.begins) == 3
        server.content = DATA + b"more"
        with ForwardFile(server.url, len(DATA)) as handle, pytest.raises(FileChanged):
            handle.read(10)
