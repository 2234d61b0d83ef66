"""Bad samples are skipped, counted and named; too many of them end the run with their names."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.loader.examples import keys, make_shards, open_loader, rewrite_member
from trackmill.pipeline.loader.catalog import Catalog, read_catalog
from trackmill.pipeline.loader.loader import ShardLoader
from trackmill.pipeline.loader.stream import TooManyBad


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make_shards(str(tmp_path / "data"))
    return tmp_path / "data"


def spoil_jpeg(catalog: Catalog, sample: int) -> str:
    """Cut the pixels of a sample off; returns its key."""
    key, path = catalog.key(sample), Path(catalog.shard_urls[int(catalog.shard_of(sample))])
    rewrite_member(path, f"{key}.jpg", lambda data: data[:300] + bytes(len(data) - 300))
    return key


def spoil_json(catalog: Catalog, sample: int) -> str:
    """Break the record of a sample; returns its key."""
    key, path = catalog.key(sample), Path(catalog.shard_urls[int(catalog.shard_of(sample))])
    rewrite_member(path, f"{key}.json", lambda data: b"x" + data[1:])
    return key


def spoil_header(catalog: Catalog, sample: int) -> str:
    """Break the tar header of a sample; returns its key."""
    path = Path(catalog.shard_urls[int(catalog.shard_of(sample))])
    data = bytearray(path.read_bytes())
    data[int(catalog.offsets[sample]) + 3] ^= 0xFF
    path.write_bytes(data)
    return catalog.key(sample)


def two_epochs(loader: ShardLoader) -> list[list[str]]:
    return [keys(next(loader)) for _ in range(2 * loader.order.batches_per_epoch)]


def everything_but(catalog: Catalog, bad: set[str]) -> set[str]:
    return {catalog.key(sample) for sample in range(len(catalog))} - bad


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_samples_are_replaced_counted_and_named(root: Path, workers: int) -> None:
    catalog = read_catalog(str(root))
    clean = two_epochs(open_loader(catalog))
    bad = {spoil_jpeg(catalog, 3), spoil_json(catalog, 11), spoil_header(catalog, 20)}
    loader = open_loader(catalog, workers=workers, max_bad=0.2, verify="off")
    seen = two_epochs(loader)
    loader.close()
    assert loader.bad == 3, "met again in the second epoch, counted once"
    reasons = dict(loader.bad_samples())
    assert set(reasons) == bad
    assert "is not a whole JPEG" in reasons[catalog.key(3)] and "not a valid record" in reasons[catalog.key(11)]
    assert all(catalog.shards[0].name[:8] in reason for reason in reasons.values())
    assert {key for batch in seen for key in batch} == everything_but(catalog, bad)
    for before, after in zip(clean, seen):
        assert [b for b, a in zip(before, after) if b != a] == [b for b in before if b in bad], "only bad places change"


def test_replacements_do_not_depend_on_position_or_workers(root: Path) -> None:
    catalog = read_catalog(str(root))
    for sample in (0, 1, 5, 13):
        spoil_jpeg(catalog, sample)
    whole = two_epochs(open_loader(catalog, max_bad=0.5))
    for workers in (0, 2):
        loader = open_loader(catalog, max_bad=0.5, workers=workers, batches_done=3)
        assert [keys(next(loader)) for _ in range(5)] == whole[3:8]
        loader.close()


def test_a_bad_partner_is_not_blamed_on_its_sample(root: Path) -> None:
    catalog = read_catalog(str(root))
    bad = spoil_jpeg(catalog, 7)
    loader = open_loader(catalog, max_bad=0.2)
    for _ in range(10):
        assert all(bad not in (example["key"], example["partner"]) for batch in [next(loader)] for example in batch)
    assert [key for key, _ in loader.bad_samples()] == [bad]


@pytest.mark.parametrize("damage", ["truncated", "missing", "longer"])
def test_samples_of_a_damaged_shard_are_bad(root: Path, damage: str) -> None:
    catalog = read_catalog(str(root))
    path = Path(catalog.shard_urls[1])
    if damage == "missing":
        path.unlink()
    else:
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2] if damage == "truncated" else data + bytes(10240))
    bad = {catalog.key(sample) for sample in range(int(catalog.first[1]), int(catalog.first[2]))}
    loader = open_loader(catalog, max_bad=0.5)
    seen = two_epochs(loader)
    assert {key for batch in seen for key in batch} == everything_but(catalog, bad)
    assert dict(loader.bad_samples()).keys() == bad
    assert all(reason.startswith(path.name) for _, reason in loader.bad_samples())


@pytest.mark.parametrize("workers", [0, 2])
def test_too_many_bad_samples_end_the_run_with_their_names(root: Path, workers: int) -> None:
    catalog = read_catalog(str(root))
    bad = [spoil_jpeg(catalog, sample) for sample in (2, 9, 16)]
    loader = open_loader(catalog, workers=workers, max_bad=0.1, verify="off")
    with pytest.raises(TooManyBad, match=r"3 of 26 samples cannot be used, more than data.max_bad") as raised:
        two_epochs(loader)
    loader.close()
    assert all(key in str(raised.value) for key in bad)
    assert "is not a whole JPEG" in str(raised.value) and "inspect_shards" in str(raised.value)


@pytest.mark.parametrize("max_bad", [0.05, 1.0])
@pytest.mark.parametrize("workers", [0, 1])
def test_nothing_but_bad_samples_is_an_error(root: Path, workers: int, max_bad: float) -> None:
    catalog: Any = read_catalog(str(root))
    shutil.rmtree(root / "shards")
    loader = open_loader(catalog, workers=workers, max_bad=max_bad)
    with pytest.raises(TooManyBad, match="is missing"):
        next(loader)
    loader.close()
    assert loader.bad == (26 if max_bad == 1 else 2)


def test_a_bad_sample_that_is_repeated_counts_once(root: Path) -> None:
    """26 samples, the even ones three times in an epoch, of which two cannot be used."""
    plain = read_catalog(str(root))
    catalog = plain.repeated(np.where(np.arange(26) % 2, 1, 3))
    assert len(catalog) == 52 and catalog.num_distinct == plain.num_distinct == 26
    firsts = [catalog.first_copy(sample) for sample in range(52)]
    assert sorted(set(firsts)) == sorted({4 * (n // 2) + 3 * (n % 2) for n in range(26)})
    assert [catalog.key(first) for first in firsts] == [catalog.key(sample) for sample in range(52)]
    assert [plain.first_copy(sample) for sample in range(26)] == list(range(26))
    bad = {spoil_jpeg(plain, 4), spoil_jpeg(plain, 7)}
    loader = open_loader(catalog, max_bad=2 / 26)
    epoch = [key for _ in range(loader.order.batches_per_epoch) for key in keys(next(loader))]
    assert loader.bad == 2 and {key for key, _ in loader.bad_samples()} == bad
    assert set(epoch) == everything_but(plain, bad) and epoch.count(plain.key(0)) >= 3
    with pytest.raises(TooManyBad, match=r"2 of 26 samples cannot be used"):
        two_epochs(open_loader(catalog, max_bad=1 / 26))
