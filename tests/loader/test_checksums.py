"""Bytes that are not those that were mined are a bad sample, wherever they were damaged; nothing else changes."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.loader.examples import make_shards, open_loader, plain
from trackmill.pipeline.loader import cache as cache_module
from trackmill.pipeline.loader.catalog import Catalog, read_catalog
from trackmill.pipeline.loader.settings import DataSettings
from trackmill.pipeline.loader.shard_files import ShardFiles
from trackmill.pipeline.shards.reader import open_dataset
from trackmill.pipeline.shards.tar import BadShard
from trackmill.pipeline.shards.verify import verify


@pytest.fixture
def store(request: pytest.FixtureRequest) -> Iterator[str]:
    """Root of a data set that counts as remote."""
    root = f"memory://{hashlib.sha256(request.node.name.encode()).hexdigest()[:16]}"
    make_shards(root)
    yield root
    fsspec.filesystem("memory").rm(root.removeprefix("memory:/"), recursive=True)


def forget_checksums(root: Path) -> None:
    """Make receipts of an older version: without the column."""
    for path in [*(root / "receipts").iterdir(), root / "manifest/items.parquet"]:
        table = pq.read_table(path)
        pq.write_table(table.drop_columns(["checksum"]), path)


def flip(path: Path, draw: random.Random) -> int:
    """Change one bit between the first header and the end mark; returns the byte's place."""
    data = bytearray(path.read_bytes())
    place = draw.randrange(len(data) - 1024)
    data[place] ^= 1 << draw.randrange(8)
    path.write_bytes(data)
    return place


def seen(catalog: Catalog, **settings: Any) -> list[Any]:
    loader = open_loader(catalog, max_bad=1.0, **settings)
    batches = [plain(next(loader)) for _ in range(4)]
    assert settings.get("verify") == "off" or loader.bad
    loader.close()
    return batches


@pytest.mark.parametrize(("older", "setting"), [(False, "samples"), (True, "samples")])
def test_no_flipped_bit_of_a_shard_gives_other_pixels_or_boxes(older: bool, setting: str, tmp_path: Path) -> None:
    """Every sample is either as it was or bad; with checksums of samples all others of the shard stay good."""
    root = make_shards(str(tmp_path)).root
    if older:
        forget_checksums(tmp_path)
    catalog, settings = read_catalog(root), DataSettings(verify=setting)
    files = ShardFiles(catalog, settings)
    whole = [bytes(files.piece(0, sample)) for sample in range(len(catalog))]
    files.close()
    path = Path(catalog.shard_urls[0])
    kept, draw = path.read_bytes(), random.Random(0)
    inside = range(int(catalog.first[0]), int(catalog.first[1]))
    for _ in range(60):
        place = flip(path, draw)
        files, bad = ShardFiles(catalog, settings), set()
        for sample in inside:
            try:
                assert bytes(files.piece(0, sample)) == whole[sample]
            except BadShard as error:
                assert "damaged: its" in str(error) and "its receipt says" in str(error)
                bad.add(sample)
        files.close()
        hit = {s for s in inside if catalog.offsets[s] <= place < catalog.offsets[s] + catalog.sizes[s]}
        assert bad == (set(inside) if older else hit)
        path.write_bytes(kept)


def test_frames_are_compared_where_nothing_else_is_known(tmp_path: Path) -> None:
    """Of tars alone, and by `data.verify = frames`."""
    catalog = read_catalog(make_shards(str(tmp_path)).root)
    path = Path(catalog.shard_urls[0])
    data = path.read_bytes()
    place = data.index(b"\xff\xda") + 40  # inside the scan of the first picture
    path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
    alone = read_catalog(str(tmp_path / "shards"))
    for found, setting in ((alone, "samples"), (alone, "frames"), (catalog, "frames"), (catalog, "samples")):
        loader = open_loader(found, max_bad=1.0, verify=setting)
        next(loader), next(loader), next(loader), next(loader)
        (bad,) = loader.bad_samples()
        said = "the sample of" if found is catalog and setting == "samples" else ".jpg: is damaged: its SHA-256 is not"
        assert said in bad[1]
        loader.close()


def test_checking_changes_no_batch_and_old_data_sets_give_the_same(tmp_path: Path) -> None:
    root = make_shards(str(tmp_path)).root
    catalog = read_catalog(root)
    expected = [plain(next(loader)) for loader in [open_loader(catalog)] for _ in range(4)]
    for setting in ("off", "frames"):
        loader = open_loader(catalog, verify=setting)
        assert [plain(next(loader)) for _ in range(4)] == expected
    forget_checksums(tmp_path)
    older = read_catalog(root)
    assert older.fingerprint == catalog.fingerprint and not older.checksums.any() and catalog.checksums.all()
    loader = open_loader(older)
    assert [plain(next(loader)) for _ in range(4)] == expected
    assert [row.checksum for row in open_dataset(root).stored] == [0] * len(older)
    assert verify(root) == []


def spoil(root: str, times: int, monkeypatch: pytest.MonkeyPatch, module: str) -> list[int]:
    """The first reads of the first shard arrive with a flipped bit; returns what counts them."""
    read, count = cache_module.read_bytes, [0]
    first = read_catalog(root).shard_urls[0]

    def bad(url: str, *place: int) -> bytes:
        data = bytearray(read(url, *place))
        if url == first:
            count[0] += 1
            if count[0] <= times:
                data[100] ^= 4
        return bytes(data)

    monkeypatch.setattr(f"trackmill.pipeline.loader.{module}.read_bytes", bad)
    return count


@pytest.mark.parametrize("module", ["cache", "shard_files"])
def test_what_is_damaged_on_its_way_is_fetched_once_more(
    module: str, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"cache": str(tmp_path)} if module == "cache" else {}
    expected = [plain(next(loader)) for loader in [open_loader(read_catalog(store))] for _ in range(4)]
    spoil(store, 1, monkeypatch, module)
    loader = open_loader(read_catalog(store), **settings)
    assert [plain(next(loader)) for _ in range(4)] == expected
    assert loader.bad == 0
    loader.close()


def test_a_shard_that_arrives_damaged_twice_is_named_with_both_hashes_and_nothing_is_cached(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = spoil(store, 100, monkeypatch, "cache")
    catalog = read_catalog(store)
    files = ShardFiles(catalog, DataSettings(cache=str(tmp_path)))
    shard = catalog.shards[0]
    for _ in range(2):
        with pytest.raises(BadShard, match=rf"{shard.name}: is damaged: its SHA-256 is \w+, its .* {shard.sha256}; "):
            files.piece(0, 0)
    files.close()
    assert count[0] == 2, "fetched twice, and not again for every sample"
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]


@pytest.mark.parametrize("older", [False, True])
def test_a_bit_that_rots_in_the_cache_is_healed(older: bool, store: str, tmp_path: Path) -> None:
    """Also of a data set without checksums of samples, when the next process opens the shard."""
    catalog = read_catalog(store)
    if older:
        catalog.checksums[:] = 0
    settings = DataSettings(cache=str(tmp_path))
    files = ShardFiles(catalog, settings)
    whole = [bytes(files.piece(0, sample)) for sample in range(len(catalog))]
    if older:
        files.close()
        files = ShardFiles(catalog, settings)
    for path in tmp_path.glob("cached-*.tar"):
        data = bytearray(path.read_bytes())
        data[700] ^= 1
        path.write_bytes(data)
    assert [bytes(files.piece(0, sample)) for sample in range(len(catalog))] == whole
    files.close()
    hashes = {hashlib.sha256(path.read_bytes()).hexdigest() for path in tmp_path.glob("cached-*.tar")}
    assert hashes == {shard.sha256 for shard in catalog.shards}


def test_a_receipt_whose_checksum_is_not_that_of_its_sample_is_found_by_verify(tmp_path: Path) -> None:
    root = make_shards(str(tmp_path)).root
    assert verify(root) == []
    path = sorted((tmp_path / "receipts").iterdir())[0]
    table = pq.read_table(path)
    changed = table["checksum"].to_numpy().copy()
    changed[0] += 1
    place = table.column_names.index("checksum")
    pq.write_table(table.set_column(place, "checksum", pa.array(changed)), path)
    (fault,) = verify(root)
    assert "its checksum is not that of its receipt" in str(fault)


def test_checks_of_old_shards_are_made_once_in_a_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_shards(str(tmp_path)).root
    forget_checksums(tmp_path)
    catalog, calls = read_catalog(root), []
    hashed: Callable[[int], str] = cache_module.file_sha256
    monkeypatch.setattr(
        "trackmill.pipeline.loader.shard_files.file_sha256", lambda number: calls.append(number) or hashed(number)
    )
    files = ShardFiles(catalog, DataSettings())
    for _ in range(3):
        files.need(0, [np.array([0])])
        files.piece(0, 0)
        files.need(0, [np.array([len(catalog) - 1])])
        files.piece(0, len(catalog) - 1)
    files.close()
    assert len(calls) == 2
