"""Remote shards: cached within a limit, shared by processes, safe against kills; or held in memory while needed."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest

from tests.faults.faulty_proxy import FaultyProxy
from tests.loader.examples import make_shards, open_loader, plain
from tests.s3_server import forget_connections, s3_server
from trackmill.pipeline.loader import cache as cache_module
from trackmill.pipeline.loader.cache import ShardCache
from trackmill.pipeline.loader.catalog import Catalog, read_catalog
from trackmill.pipeline.loader.settings import DataSettings
from trackmill.pipeline.loader.shard_files import ShardFiles
from trackmill.pipeline.shards.tar import BadShard
from trackmill.schemas.config import ConfigError
from trackmill.schemas.receipt import ShardInfo

SECRET = "nQ4v-not-to-be-seen-anywhere-7Tk"
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def in_memory(request: pytest.FixtureRequest) -> Iterator[Catalog]:
    """A data set on fsspec's file system in memory, which counts as remote; only this process sees it."""
    name = hashlib.sha256(request.node.name.encode()).hexdigest()[:16]
    yield read_catalog(make_shards(f"memory://{name}").root)
    fsspec.filesystem("memory").rm(f"/{name}", recursive=True)


def batches(catalog: Catalog, count: int = 10, **options: object) -> list[object]:
    loader = open_loader(catalog, **options)  # type: ignore[arg-type]
    found = [plain(next(loader)) for _ in range(count)]
    loader.close()
    return found


def listing(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in folder.iterdir() if path.name != "lock"}


def test_the_same_batches_from_anywhere(in_memory: Catalog, tmp_path: Path) -> None:
    local = read_catalog(make_shards(str(tmp_path / "data")).root)
    assert local.fingerprint == in_memory.fingerprint
    expected = batches(local)
    assert batches(in_memory) == expected, "held in memory"
    largest = max(shard.num_bytes for shard in local.shards)
    for limit in (largest, 1 << 30):
        cached = batches(in_memory, cache=str(tmp_path / str(limit)), cache_bytes=limit)
        assert cached == expected
        assert sum(listing(tmp_path / str(limit)).values()) <= limit
    assert len(listing(tmp_path / str(1 << 30))) == len(local.shards)


def test_what_is_cached_is_not_fetched_again(
    in_memory: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = batches(in_memory, cache=str(tmp_path))
    monkeypatch.setattr(cache_module, "read_bytes", lambda *_: pytest.fail("fetched again"))
    assert batches(in_memory, cache=str(tmp_path)) == first


def test_memory_is_let_go_with_its_window(in_memory: Catalog) -> None:
    files = ShardFiles(in_memory, DataSettings())
    files.need(0, [np.array([0, 3, 1]), np.array([12, 10])])
    assert set(files._held[0].runs) == {(0, 3), (10, 12)}
    assert len(files.piece(0, 3)) == in_memory.sizes[3]
    kept = files._held[0].runs[(10, 12)]
    files.need(0, [np.array([12, 10])])
    assert files._held[0].runs == {(10, 12): kept}, "not fetched twice"
    assert len(files.piece(0, 2)) == in_memory.sizes[2], "what no window holds can still be read"
    files.close()


def test_local_files_are_closed_with_their_windows(tmp_path: Path) -> None:
    catalog = read_catalog(make_shards(str(tmp_path)).root)
    before = len(os.listdir("/proc/self/fd"))
    files = ShardFiles(catalog, DataSettings())
    for shard in range(len(catalog.shards)):
        sample = int(catalog.first[shard])
        files.need(0, [np.array([sample])])
        files.piece(0, sample)
        assert len(os.listdir("/proc/self/fd")) <= before + 2
    files.close()
    assert len(os.listdir("/proc/self/fd")) <= before


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("damage", ["truncated", "missing"])
def test_damaged_remote_shards_are_bad(in_memory: Catalog, tmp_path: Path, cached: bool, damage: str) -> None:
    store, path = fsspec.filesystem("memory"), in_memory.shard_urls[0].removeprefix("memory:/")
    if damage == "missing":
        store.rm(path)
    else:
        store.pipe(path, store.cat(path)[:-2048])
    files = ShardFiles(in_memory, DataSettings(cache=str(tmp_path) if cached else ""))
    files.need(0, [np.arange(len(in_memory))])
    for _ in range(2):
        with pytest.raises(BadShard, match=f"{in_memory.shards[0].name}: (is missing|has .* bytes, not)"):
            files.piece(0, 1)
    assert len(files.piece(0, len(in_memory) - 1)) == in_memory.sizes[-1]
    files.close()
    assert not [name for name in listing(tmp_path) if name.endswith(".part")]


def test_an_outage_is_no_bad_sample(in_memory: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> bytes:
        raise PermissionError("Forbidden")

    monkeypatch.setattr("trackmill.pipeline.loader.shard_files.read_bytes", fail)
    monkeypatch.setattr(cache_module, "read_bytes", fail)
    for cache in ("", str(tmp_path)):
        loader = open_loader(in_memory, cache=cache)
        with pytest.raises(OSError, match=r"memory://.*part-0000000\d.*\.tar: Forbidden"):
            next(loader)
        assert loader.bad == 0
        loader.close()


def test_settings_of_the_cache_are_checked(in_memory: Catalog, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data.cache_bytes: 100 bytes do not hold the largest shard"):
        open_loader(in_memory, cache=str(tmp_path), cache_bytes=100)
    with pytest.raises(ConfigError, match=r"data.cache: 's3://bucket/x' is not a local folder"):
        open_loader(in_memory, cache="s3://bucket/x")
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"data.cache: .* cannot be made"):
        open_loader(in_memory, cache=str(tmp_path / "file"))
    assert "no data.cache" in open_loader(in_memory).notices[0]


def put(name: str, size: int = 1000) -> tuple[str, ShardInfo]:
    data = hashlib.sha256(name.encode()).digest() * (size // 32)
    fsspec.filesystem("memory").pipe(f"/cache-test/{name}", data)
    return f"memory://cache-test/{name}", ShardInfo(name=name, num_bytes=len(data), sha256="", num_samples=1)


def whole(descriptor: int, name: str) -> bool:
    data = os.pread(descriptor, 1 << 20, 0)
    os.close(descriptor)
    return data == hashlib.sha256(name.encode()).digest() * (len(data) // 32)


def test_the_longest_unused_goes_first_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "mine.tar").write_bytes(bytes(5000))
    (tmp_path / "notes.part").write_bytes(bytes(5000))
    cache = ShardCache(str(tmp_path), 3000, 1000)
    for number, name in enumerate(("a.tar", "b.tar", "c.tar", "a.tar", "d.tar")):
        descriptor = cache.open(*put(name))
        now = 10_000 + number
        assert whole(descriptor, name)
        (found,) = tmp_path.glob(f"cached-*-{name}")
        os.utime(found, (now, now))
    left = {name.split("-")[-1] for name in listing(tmp_path)}
    assert left == {"a.tar", "c.tar", "d.tar", "mine.tar", "notes.part"}


def test_evicted_while_it_is_read(tmp_path: Path) -> None:
    cache = ShardCache(str(tmp_path), 1000, 1000)
    reading = cache.open(*put("a.tar"))
    assert whole(cache.open(*put("b.tar")), "b.tar")
    assert len(listing(tmp_path)) == 1
    assert whole(reading, "a.tar")


def test_a_short_file_under_a_good_name_is_fetched_again(tmp_path: Path) -> None:
    cache = ShardCache(str(tmp_path), 1 << 20, 1000)
    os.close(cache.open(*put("a.tar")))
    (path,) = tmp_path.glob("cached-*.tar")
    path.write_bytes(b"short")
    assert whole(cache.open(*put("a.tar")), "a.tar")


def test_many_threads_share_a_small_cache(tmp_path: Path) -> None:
    """More is wanted at once than fits: everybody gets whole shards, and the limit holds all along."""
    names = [f"{n}.tar" for n in range(6)]
    shards = {name: put(name) for name in names}
    done, most, problems = threading.Event(), [0], []

    def read(seed: int) -> None:
        cache, rng = ShardCache(str(tmp_path), 2500, 1000), np.random.default_rng(seed)
        for _ in range(40):
            name = names[int(rng.integers(len(names)))]
            if not whole(cache.open(*shards[name]), name):
                problems.append(name)

    def watch() -> None:
        while not done.is_set():
            with ShardCache(str(tmp_path), 2500, 1000)._alone():
                sizes = [length for _, _, length in ShardCache(str(tmp_path), 2500, 1000)._files()]
            most[0] = max(most[0], sum(sizes))

    watcher = threading.Thread(target=watch)
    readers = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in (watcher, *readers):
        thread.start()
    for thread in readers:
        thread.join()
    done.set()
    watcher.join()
    assert not problems
    assert 1000 <= most[0] <= 2500
    assert not [name for name in listing(tmp_path) if name.endswith(".part")]


_SLOW_FETCH = """
import sys, time
from trackmill.pipeline.loader import cache
from trackmill.schemas.receipt import ShardInfo
cache.CHUNK_BYTES = 100
cache.check_length = lambda url, shard: None
def slow(url, begin, length):
    if begin >= 500:
        print("half way", flush=True)
        time.sleep(600)
    return bytes(length)
cache.read_bytes = slow
cache.ShardCache(sys.argv[1], 1500, 992).open(
    "memory://cache-test/a.tar", ShardInfo(name="a.tar", num_bytes=992, sha256="", num_samples=1))
"""


def test_killed_half_way(tmp_path: Path) -> None:
    """A process that dies while fetching keeps nobody waiting, and its room is used again."""
    for name in ("a.tar", "b.tar"):
        process = subprocess.Popen(
            [sys.executable, "-c", _SLOW_FETCH, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        assert process.stdout is not None and process.stdout.readline().strip() == "half way"
        (part,) = tmp_path.glob("*.part")
        assert part.stat().st_size == 992, "its room is taken from the start"
        got: list[bool] = []
        cache = ShardCache(str(tmp_path), 1500, 992)
        # The same shard waits for who has it in hand, another one for its room.
        waiting = threading.Thread(target=lambda: got.append(whole(cache.open(*put(name)), name)))  # noqa: B023
        waiting.start()
        time.sleep(0.3)
        assert not got
        process.send_signal(signal.SIGKILL)
        process.wait()
        waiting.join(timeout=120)
        assert got == [True]
        assert [path.name.split("-")[-1] for path in tmp_path.glob("cached-*")] == [name]
        for path in tmp_path.glob("cached-*"):
            path.unlink()


@pytest.fixture(scope="module")
def endpoint() -> Iterator[tuple[str, int]]:
    with s3_server() as address:
        yield address


def test_from_s3_through_faults(endpoint: tuple[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An endpoint that fails now and then gives the same batches, to workers as well, with and without a cache."""
    expected = batches(read_catalog(make_shards(str(tmp_path / "local")).root), 6, streams=2)
    proxy = FaultyProxy(*endpoint, every=0)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIATESTNOTREAL00000")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_RETRY_MODE", "standard")
    fsspec.filesystem("s3").mkdir("loader")
    catalog = read_catalog(make_shards("s3://loader/data").root)
    stormy = FaultyProxy(*endpoint, every=5)
    monkeypatch.setenv("AWS_ENDPOINT_URL", stormy.url)
    forget_connections()
    try:
        assert batches(catalog, 6, streams=2) == expected
        assert batches(catalog, 6, streams=2, workers=1, cache=str(tmp_path / "cache")) == expected
        assert sum(stormy.hits.values()) > 0
        assert listing(tmp_path / "cache").keys() and not list((tmp_path / "cache").glob("*.part"))
    finally:
        proxy.close()
        stormy.close()
