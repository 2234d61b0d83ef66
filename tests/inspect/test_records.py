"""Records alone are those of the samples, from a few bytes of each, and damage is named."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from tests.make_dataset import make_dataset
from trackmill.pipeline.shards import records
from trackmill.pipeline.shards.reader import Dataset, open_dataset, read_row
from trackmill.pipeline.shards.records import iter_records, read_record
from trackmill.pipeline.shards.tar import BadShard


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return open_dataset(make_dataset(str(tmp_path_factory.mktemp("data") / "set"), num_images=9).root)


@pytest.mark.parametrize("first", [512, 1024, 1 << 20])  # it begins in front of what is read first; all is read
def test_they_are_those_of_the_samples(dataset: Dataset, monkeypatch: pytest.MonkeyPatch, first: int) -> None:
    monkeypatch.setattr(records, "_FIRST_BYTES", first)
    monkeypatch.setattr(records, "_AHEAD", 3)
    found = list(iter_records(dataset, dataset.stored))
    assert [row.key for row, _ in found] == [row.key for row in dataset.stored]
    assert all(record == read_row(dataset, row).record for row, record in found)
    assert len(found) == 10


def test_pictures_are_not_read(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = []
    read_bytes = records.read_bytes

    def counted(url: str, offset: int, length: int) -> bytes:
        lengths.append(length)
        return read_bytes(url, offset, length)

    monkeypatch.setattr(records, "read_bytes", counted)
    monkeypatch.setattr(records, "_FIRST_BYTES", 3072)
    row = dataset.stored[0]
    assert read_record(dataset, row).key == row.key
    assert sum(lengths) == 3072 < row.size


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"offset": -1}, "has no place in its receipt"),
        ({"size": 1 << 40}, "has no place in its receipt"),
        ({"size": 513}, "has no place in its receipt"),
        ({"key": "images-other"}, "does not end at byte"),
        ({"offset": 512}, "does not end at byte"),
    ],
)
def test_what_is_no_place_of_a_sample(dataset: Dataset, values: dict[str, int], message: str) -> None:
    row = dataclasses.replace(dataset.stored[0], **values)  # type: ignore[arg-type]
    with pytest.raises(BadShard, match=message):
        read_record(dataset, row)


def test_errors_come_in_place_of_records(tmp_path: Path) -> None:
    dataset = open_dataset(make_dataset(str(tmp_path / "set")).root)
    broken, gone = dataset.stored[1], dataset.shards[-1].name
    shard = Path(dataset.shard_url(broken.shard))
    data = bytearray(shard.read_bytes())
    data[broken.offset + broken.size - 2000 : broken.offset + broken.size] = b"x" * 2000
    shard.write_bytes(data)
    Path(dataset.shard_url(gone)).unlink()
    kinds = [type(record).__name__ for _, record in iter_records(dataset, dataset.stored)]
    assert kinds == ["SampleRecord", "BadShardMember", "SampleRecord", "SampleRecord", "FileNotFoundError"]
