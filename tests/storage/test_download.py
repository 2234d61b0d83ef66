"""Downloads over real HTTP: one for all processes of a machine, continued where they broke, never of two versions."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("aiohttp")

from tests.storage.file_server import FileServer, serving
from trackmill.pipeline.storage import retries
from trackmill.pipeline.storage.fetched import BadWeights, fetch_weights
from trackmill.schemas.errors import StorageError

ROOT = Path(__file__).resolve().parents[2]
DATA = random.Random(0).randbytes(1_000_000)
OTHER = random.Random(1).randbytes(1_000_000)
SHA256 = hashlib.sha256(DATA).hexdigest()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder, and no pauses."""
    monkeypatch.setenv("TRACKMILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("trackmill.pipeline.storage.retries.pause", lambda seconds: None)
    return tmp_path / "cache" / "weights"


def cached(cache: Path) -> list[Path]:
    """What is in the cache beside the locks."""
    return [path for path in cache.iterdir() if path.suffix != ".lock"]


def test_eight_processes_fetch_one_file_once(cache: Path) -> None:
    code = (
        "import sys; from trackmill.pipeline.storage.fetched import fetch_weights;"
        "print(fetch_weights(sys.argv[1]).sha256)"
    )
    with serving(FileServer(content=DATA)) as server:
        command = [sys.executable, "-c", code, server.url]
        running = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(8)]
        said = [each.communicate()[0].strip() for each in running]
    assert said == [SHA256] * 8
    assert server.begins == [0] and server.sent == len(DATA)
    assert [path.read_bytes() for path in cached(cache)] == [DATA]


def test_a_download_that_breaks_goes_on_from_there(cache: Path) -> None:
    with serving(FileServer(content=DATA, cuts=[300_000, 200_000])) as server:
        assert fetch_weights(server.url).sha256 == SHA256
    assert server.begins == [0, 300_000, 500_000] and server.sent == len(DATA)
    assert [path.read_bytes() for path in cached(cache)] == [DATA]


def test_attempts_that_bring_something_are_not_counted() -> None:
    cuts = [50_000] * (3 * retries.ATTEMPTS)
    with serving(FileServer(content=DATA, cuts=list(cuts))) as server:
        assert fetch_weights(server.url).sha256 == SHA256
    assert len(server.begins) == len(cuts) + 1 and server.sent == len(DATA)


def test_a_server_without_ranges_is_asked_from_the_beginning() -> None:
    with serving(FileServer(content=DATA, cuts=[300_000, 600_000], ranges=False)) as server:
        assert fetch_weights(server.url).sha256 == SHA256
    assert server.begins == [0, 0, 0]


def test_the_next_run_goes_on_where_the_last_one_gave_up(cache: Path) -> None:
    with serving(FileServer(content=DATA, cuts=[300_000] + [0] * retries.ATTEMPTS)) as server:
        with pytest.raises(StorageError, match=r"mine\.pth: gave up after"):
            fetch_weights(server.url)
        (part,) = cached(cache)
        assert part.name.endswith("-mine.pth.part") and part.read_bytes() == DATA[:300_000]
        server.begins.clear()
        assert fetch_weights(server.url).sha256 == SHA256
    assert server.begins == [300_000]


@pytest.mark.parametrize(
    ("etag", "new_etag", "content"),
    [
        ('"one"', '"two"', OTHER),  # the server itself sends all of the new one
        ('"one"', '"two"', OTHER[:700_000]),  # the same, and it is shorter
        ('W/"one"', 'W/"two"', OTHER),  # a range of the new one arrives, which shows at the end
        ('W/"one"', 'W/"two"', OTHER + b"!"),  # a range of a longer one
    ],
    ids=["same length", "shorter", "weak ETag", "weak ETag, longer"],
)
def test_an_object_that_changes_meanwhile_is_fetched_anew(etag: str, new_etag: str, content: bytes) -> None:
    server = FileServer(content=DATA, etag=etag, cuts=[300_000], change=(content, new_etag))
    with serving(server):
        assert fetch_weights(server.url).path.read_bytes() == content
    assert server.begins[-1] == 0


def test_an_object_that_has_changed_since_is_not_continued(cache: Path) -> None:
    with serving(FileServer(content=DATA, cuts=[300_000] + [0] * retries.ATTEMPTS)) as server:
        with pytest.raises(StorageError):
            fetch_weights(server.url)
        server.content, server.etag = OTHER, '"two"'
        server.begins.clear()
        assert fetch_weights(server.url).path.read_bytes() == OTHER
    assert server.begins == [0]


def test_without_a_version_nothing_is_continued() -> None:
    """The length alone does not say whether it is still the same object."""
    with serving(FileServer(content=DATA, cuts=[300_000], etag="")) as server:
        assert fetch_weights(server.url).sha256 == SHA256
    assert server.begins == [0, 0]


def test_a_partial_file_that_is_damaged_is_thrown_away(cache: Path) -> None:
    with serving(FileServer(content=DATA, cuts=[300_000] + [0] * retries.ATTEMPTS)) as server:
        with pytest.raises(StorageError):
            fetch_weights(server.url)
        (part,) = cached(cache)
        part.write_bytes(b"x" * 300_000)
        server.begins.clear()
        assert fetch_weights(server.url, SHA256).path.read_bytes() == DATA
    assert server.begins == [300_000, 0]


def test_a_cached_file_that_is_not_whole_is_fetched_again() -> None:
    with serving(FileServer(content=DATA)) as server:
        os.truncate(fetch_weights(server.url).path, 1000)
        assert fetch_weights(server.url).sha256 == SHA256
    assert server.begins == [0, 0]


def test_another_file_than_was_promised_does_not_stay(cache: Path) -> None:
    other = hashlib.sha256(OTHER).hexdigest()
    with (
        serving(FileServer(content=OTHER)) as server,
        pytest.raises(BadWeights, match=f"its SHA-256 is {other}.* with {SHA256}"),
    ):
        fetch_weights(server.url, SHA256)
    assert cached(cache) == []


def test_digits_in_the_name_are_held_to(cache: Path) -> None:
    with (
        serving(FileServer(content=DATA), name="net-0123abcd.pth") as server,
        pytest.raises(BadWeights, match="its name promises 0123abcd"),
    ):
        fetch_weights(f"{server.url}?signature=secret")
    assert cached(cache) == []


@pytest.mark.parametrize(
    ("status", "error", "said"),
    [
        (404, FileNotFoundError, "check the URL|no such file"),
        (403, PermissionError, "is a token or signature missing"),
        (500, StorageError, "gave up after 5 attempts: .*HTTP 500"),
    ],
)
def test_what_the_server_says_is_told(status: int, error: type[Exception], said: str) -> None:
    with serving(FileServer(content=DATA, status=status)) as server, pytest.raises(error, match=said):
        fetch_weights(server.url)


def test_nobody_answers() -> None:
    with serving(FileServer(content=DATA)) as server:
        pass
    with pytest.raises(StorageError, match="gave up after 5 attempts"):
        fetch_weights(server.url)
