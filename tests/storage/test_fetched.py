"""Checkpoints: fetched whole or not at all, the right file or none; over HTTP see `test_download`."""

from __future__ import annotations

import hashlib
import os
import socket
from pathlib import Path
from typing import Any

import fsspec
import pytest

from trackmill.models.choice import Choice
from trackmill.pipeline.storage import download, retries, urls
from trackmill.pipeline.storage import fetched as weights
from trackmill.pipeline.storage.fetched import BadWeights, Weights, fetch_weights
from trackmill.pipeline.weights import build_detector
from trackmill.schemas.errors import MissingPackage, StorageError

DATA = b"not really a checkpoint " * 1000


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder."""
    monkeypatch.setenv("TRACKMILL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "weights"


@pytest.fixture
def remote() -> str:
    """A checkpoint on a remote file system."""
    url = f"memory://weights-{os.urandom(4).hex()}/mine.pth"
    fsspec.filesystem("memory").pipe_file(url, DATA)
    return url


def cached(cache: Path) -> list[str]:
    """Names in the cache, without the locks."""
    return sorted(path.name for path in cache.iterdir() if path.suffix != ".lock")


def test_a_local_file_is_used_where_it_lies(tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "mine.pth"
    path.write_bytes(DATA)
    found = fetch_weights(str(path))
    assert found == Weights(path=path, name="mine.pth", sha256=hashlib.sha256(DATA).hexdigest())
    assert found.name == "mine.pth"
    assert not cache.exists()


def test_a_remote_file_is_fetched_once(cache: Path, remote: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first = fetch_weights(remote)
    assert first.path.read_bytes() == DATA and first.name == "mine.pth"
    assert first.sha256 == hashlib.sha256(DATA).hexdigest()
    monkeypatch.setattr(weights, "_bring", None)  # a second download would fail
    assert fetch_weights(remote) == first
    assert cached(cache) == [first.path.name]


def test_a_remote_file_that_was_replaced_is_fetched_again(cache: Path, remote: str) -> None:
    first = fetch_weights(remote)
    changed = DATA[::-1]  # trained again: another file of the same size
    fsspec.filesystem("memory").pipe_file(remote, changed)
    second = fetch_weights(remote)
    assert second.sha256 == hashlib.sha256(changed).hexdigest() != first.sha256


def test_a_download_that_breaks_is_tried_again(cache: Path, remote: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fs = fsspec.filesystem("memory")
    cat_file, calls = fs.cat_file, []
    monkeypatch.setattr("trackmill.pipeline.storage.retries.pause", lambda seconds: None)
    monkeypatch.setattr(download, "_RANGE", 5000)

    def flaky(path: str, start: int, end: int) -> bytes:
        calls.append(start)
        if len(calls) == 2:
            raise ConnectionError("reset by peer")
        data: bytes = cat_file(path, start, end)
        return data[:100] if len(calls) == 6 else data  # ended early without an error

    monkeypatch.setattr(fs, "cat_file", flaky)
    assert fetch_weights(remote).path.read_bytes() == DATA
    # Four at once; what follows a gap is asked for again.
    assert calls == [0, 5000, 10000, 15000, 5000, 10000, 15000, 20000, 10100, 15100, 20100]


def test_a_failed_download_keeps_what_arrived(cache: Path, remote: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trackmill.pipeline.storage.retries.pause", lambda seconds: None)
    fs = fsspec.filesystem("memory")
    cat_file = fs.cat_file
    monkeypatch.setattr(fs, "cat_file", lambda path, start, end: DATA[:10] if start == 0 else b"")
    with pytest.raises(OSError, match=f"10 of {len(DATA)} bytes arrived"):
        fetch_weights(remote)
    (part,) = cached(cache)
    assert (cache / part).read_bytes() == DATA[:10]
    monkeypatch.setattr(fs, "cat_file", cat_file)
    assert fetch_weights(remote).path.read_bytes() == DATA
    assert len(cached(cache)) == 1


def test_without_locks_everybody_fetches_into_a_file_of_their_own(
    cache: Path, remote: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(handle: Any, operation: int) -> None:
        raise OSError("no locks available")

    monkeypatch.setattr(weights.fcntl, "flock", no_locks)
    cache.mkdir(parents=True)
    assert fetch_weights(remote).path.read_bytes() == DATA
    assert len(cached(cache)) == 1


def test_partial_files_that_nobody_asks_for_are_removed(cache: Path, remote: str) -> None:
    cache.mkdir(parents=True)
    old, new = cache / "0123-old.pth.part", cache / "0123-new.pth.part"
    for path in (old, new):
        path.write_bytes(b"x")
    os.utime(old, (0, 0))
    fetch_weights(remote)
    assert not old.exists() and new.exists()


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("hf://org/repo/masa_r50.pth", "org/repo/masa_r50.pth"),
        ("hf://org/repo/sub/masa_r50.pth@v1.0", "org/repo@v1.0/sub/masa_r50.pth"),
        ("hf://org/repo@v1.0/masa_r50.pth", "org/repo@v1.0/masa_r50.pth"),
        ("hf://datasets/org/repo/shards/part.tar@v1.0", "datasets/org/repo@v1.0/shards/part.tar"),
        ("hf://datasets/org/repo@v1.0", "datasets/org/repo@v1.0"),
    ],
)
def test_hugging_face(url: str, path: str) -> None:
    pytest.importorskip("huggingface_hub")
    assert urls.filesystem(url)[1] == path


def test_a_missing_client_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(url: str) -> None:
        raise ImportError("Install huggingface_hub to access HfFileSystem")

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    with pytest.raises(MissingPackage, match=r'pip install -e "\.\[hf\]"'):
        fetch_weights("hf://org/repo/masa_r50.pth")


def test_a_missing_file_is_named(tmp_path: Path, cache: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"gone\.pth"):
        fetch_weights(str(tmp_path / "gone.pth"))
    with pytest.raises(FileNotFoundError):
        fetch_weights("memory://nowhere/gone.pth")


@pytest.mark.parametrize(
    "name",
    [
        "sam_vit_h_4b8939.pth",  # the full sum is known
        "sam_vit_b_ffffff.pth",  # only the six digits in the name are
    ],
)
def test_an_official_name_promises_an_md5(tmp_path: Path, cache: Path, name: str) -> None:
    (tmp_path / name).write_bytes(DATA)
    with pytest.raises(BadWeights, match=f"MD5 is .*{name} has .*damaged or was renamed"):
        fetch_weights(str(tmp_path / name))

    url = f"memory://official/{name}"
    fsspec.filesystem("memory").pipe_file(url, DATA)
    with pytest.raises(BadWeights, match="fetch it again"):
        fetch_weights(url)
    assert cached(cache) == []


def test_an_md5_that_is_kept(tmp_path: Path) -> None:
    path = tmp_path / f"sam_vit_b_{hashlib.md5(DATA).hexdigest()[:6]}.pth"
    path.write_bytes(DATA)
    assert fetch_weights(str(path)).name == path.name


def test_workers_must_have_the_drivers_file(tmp_path: Path, cache: Path, remote: str) -> None:
    planned = fetch_weights(remote).sha256
    assert fetch_weights(remote, planned).sha256 == planned
    path = tmp_path / "mine.pth"
    path.write_bytes(DATA + b"!")
    with pytest.raises(BadWeights, match=f"planned with {planned}"):
        fetch_weights(str(path), planned)


def test_without_a_network_it_is_said_what_was_wanted_and_what_to_give(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("aiohttp")
    monkeypatch.setattr(retries, "pause", lambda seconds: None)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/detector.pth"
        with pytest.raises(StorageError, match=r"detector\.pth: gave up after 5 attempts: .*give the path of a file"):
            fetch_weights(url)
        monkeypatch.setattr(Choice, "default_weights", lambda self: url)
        expected = r"the published weights of torchvision:fasterrcnn_resnet50_fpn: .*--detector-weights FILE"
        with pytest.raises(StorageError, match=expected):
            build_detector("torchvision:fasterrcnn_resnet50_fpn")
