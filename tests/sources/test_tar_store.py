"""Tars over S3: planned by one pass each, whose result is stored as it is made and used again."""

from __future__ import annotations

import io
import logging
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from tests.object_store import ObjectStore, Sparse, object_store
from tests.sources.test_tar_headers import ZEROS, header
from trackmill.pipeline.isolation import process
from trackmill.pipeline.isolation.limits import Limits, limited
from trackmill.pipeline.shards.receipts import to_parquet
from trackmill.pipeline.sources import tar_index
from trackmill.pipeline.sources.tar_index import index_tar, index_tars
from trackmill.pipeline.sources.tar_members import TarIndex, TarRange
from trackmill.pipeline.sources.tar_store import stored_tar_indexes, version_now
from trackmill.pipeline.storage.forward_reads import RemoteVersion
from trackmill.pipeline.storage.list_files import FileInfo

MEMBERS = 270


def sparse_tar(members: int = MEMBERS, length: int = 250_000, first: int = 0) -> Sparse:
    """A tar of which only the headers are kept, as large as one of SA-1B with so many members."""
    pieces, place = [], 0
    for number in range(members):
        name = f"sa_{first + number // 2}.{'json' if number % 2 else 'jpg'}".encode()
        pieces.append((place, header(name, length)))
        place += 512 + -(-length // 512) * 512
    return Sparse(place + 1024, (*pieces, (place, ZEROS)))


@pytest.fixture
def store() -> Iterator[ObjectStore]:
    with object_store() as store:
        for number in range(2):
            store.objects[f"b/in/sa_{number:06d}.tar"] = sparse_tar(first=number * MEMBERS)
        yield store


def tars(store: ObjectStore) -> list[FileInfo]:
    return [FileInfo(f"s3://{name}", 0) for name in sorted(store.objects) if name.startswith("b/in/")]


def indexes(store: ObjectStore, folder: str = "s3://b/out/tar-index") -> list[TarIndex | str]:
    with stored_tar_indexes(folder):
        return list(index_tars(tars(store)))


def test_a_tar_of_many_members_is_one_request(store: ObjectStore) -> None:
    index = index_tar("s3://b/in/sa_000000.tar")
    assert len(index.files) == MEMBERS and not index.bad
    assert index.files["sa_1.jpg"] == TarRange(2 * (512 + 250_368) + 512, 250_000)
    assert store.counts == {"HEAD": 1, "GET": 1}


def test_a_pass_survives_broken_connections(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = index_tar("s3://b/in/sa_000000.tar")
    store.forget()
    store.cuts = [30_000_000, 0, 21_000_000]
    assert index_tar("s3://b/in/sa_000000.tar") == whole
    size = store.objects["b/in/sa_000000.tar"].size
    assert store.counts["GET"] == 4 and store.sent < 1.1 * size


@pytest.mark.parametrize("isolate", [False, True])
def test_stored_indexes_are_used_again(store: ObjectStore, isolate: bool) -> None:
    with limited(Limits(1 << 30, 600) if isolate else None):
        first = indexes(store)
        assert all(isinstance(each, TarIndex) and len(each.files) == MEMBERS for each in first)
        assert len([name for name in store.objects if name.startswith("b/out/tar-index/")]) == 2
        store.forget()
        assert indexes(store) == first
        process._close_all()  # children that know this store; other tests count those that are idle
    assert not [name for name, _, _ in store.gets if name.startswith("b/in/")], "no tar was walked"
    assert not store.counts["PUT"]


def test_a_tar_that_is_replaced_is_walked_anew(store: ObjectStore) -> None:
    before = indexes(store)
    store.objects["b/in/sa_000001.tar"] = sparse_tar(MEMBERS - 2)
    after = indexes(store)
    assert after[0] == before[0] and isinstance(after[1], TarIndex) and len(after[1].files) == MEMBERS - 2


def test_nothing_is_stored_without_a_folder_nor_of_small_tars(store: ObjectStore) -> None:
    assert indexes(store, "") == indexes(store)
    small = sparse_tar(4)
    store.objects = {"b/in/sa_000000.tar": small}
    indexes(store)
    assert list(store.objects) == ["b/in/sa_000000.tar"]


def test_a_stored_index_that_is_damaged_is_made_again(store: ObjectStore, caplog: pytest.LogCaptureFixture) -> None:
    first = indexes(store)
    name = min(name for name in store.objects if name.startswith("b/out/"))
    good = store.objects[name]
    assert isinstance(good, bytes)
    for data in (good[:-40], b"", good[:60] + bytes([good[60] ^ 1]) + good[61:]):
        store.objects[name] = data
        caplog.clear()
        with caplog.at_level(logging.WARNING, logger="trackmill"):
            assert indexes(store) == first
        assert f"s3://{name}: the stored index of s3://b/in/sa_" in caplog.text and "walked again" in caplog.text
        assert store.objects[name] == good


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("offset", 1 << 60, "lies outside of the tar"),
        ("length", -5, "lies outside of the tar"),
        ("name", "", "lies outside of the tar"),
        ("name", "sa_1.jpg", "two of its members have one name"),
        ("name", None, "empty cells"),
    ],
)
def test_a_stored_index_that_lies_is_not_believed(
    store: ObjectStore, caplog: pytest.LogCaptureFixture, column: str, value: object, said: str
) -> None:
    import pyarrow.parquet as pq

    first = indexes(store)
    name = min(name for name in store.objects if name.startswith("b/out/"))
    table = pq.read_table(io.BytesIO(store.objects[name]))
    place = table.schema.get_field_index(column)
    values = table[column].to_pylist()
    values[0] = value
    if value == "sa_1.jpg":
        values[0] = values[1]
    table = table.set_column(place, table.schema.field(place), pa.array(values, table.schema.field(place).type))
    store.objects[name] = to_parquet(table)
    assert indexes(store) == first
    assert said in caplog.text


def test_an_output_that_cannot_be_written_does_not_spoil_the_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tar_index, "_WORTH_STORING", 0)
    with tarfile.open(tmp_path / "sa_000000.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("sa_1.jpg"))
    (tmp_path / "out").write_bytes(b"a file")
    with stored_tar_indexes(str(tmp_path / "out")):
        (index,) = index_tars([FileInfo(str(tmp_path / "sa_000000.tar"), 0)])
    assert isinstance(index, TarIndex) and list(index.files) == ["sa_1.jpg"]
    assert "cannot be stored" in caplog.text


def test_a_tar_of_this_machine_is_known_by_its_time(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(ZEROS)
    version = version_now(str(tmp_path / "a.tar"))
    assert version == RemoteVersion(1024, str((tmp_path / "a.tar").stat().st_mtime_ns))
