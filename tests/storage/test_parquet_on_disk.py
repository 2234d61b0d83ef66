"""Tables that are read a row group at a time: the same rows, limits and checksums as of a whole file."""

from __future__ import annotations

import random
import uuid
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.storage.parquet_bombs import repeated_number, repeated_text, written
from trackmill.pipeline.storage.limits import FileTooLarge
from trackmill.pipeline.storage.parquet import on_disk
from trackmill.pipeline.storage.parquet.checksum import add_checksum
from trackmill.pipeline.storage.parquet.on_disk import StoredTable
from trackmill.pipeline.storage.parquet.reading import BadParquet
from trackmill.pipeline.storage.publish import publish_bytes

TABLE = pa.table({"key": [f"key {n % 7}" for n in range(1000)], "size": np.arange(1000), "box": [[1.0, 2.0]] * 1000})


def table_file(path: Path) -> Path:
    pq.write_table(TABLE, path, row_group_size=130, compression="zstd", write_page_checksum=True)
    add_checksum(path)
    return path


def everything(table: StoredTable, columns: list[str]) -> pa.Table:
    return pa.concat_tables(table.group(number).read(columns) for number in range(len(table.group_rows)))


@pytest.mark.parametrize("kind", ["local", "memory"])
def test_row_groups_end_to_end_are_the_table(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_disk, "_BLOCK", 1000)
    url = str(table_file(tmp_path / "a.parquet"))
    if kind == "memory":
        data, url = Path(url).read_bytes(), f"memory://{uuid.uuid4().hex}/a.parquet"
        publish_bytes(url, data)
    table = StoredTable(url)
    assert table.group_rows == [130] * 7 + [90]
    assert everything(table, ["size", "key", "box"]).equals(TABLE.select(["size", "key", "box"]))
    assert table.group(7).read(["key"]).equals(TABLE.select(["key"]).slice(910))
    with pytest.raises(BadParquet, match="has no column 'name'"):
        table.group(0).read(["name"])
    table.close()
    with pytest.raises(FileTooLarge):
        StoredTable(url, max_bytes=1000)


def test_an_empty_table_has_no_rows(tmp_path: Path) -> None:
    pq.write_table(TABLE.slice(0, 0), tmp_path / "a.parquet")
    assert sum(StoredTable(str(tmp_path / "a.parquet")).group_rows) == 0


def test_a_row_group_that_unfolds_is_refused_and_the_others_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(repeated_number(4 << 20))
    floor = 40 << 20
    table = StoredTable(str(path), floor=floor)  # of each group 1 Mi rows of 20 bytes, but not of all four
    assert [table.group(number).read(["frame"]).num_rows for number in range(4)] == [1 << 20] * 4
    with pytest.raises(BadParquet, match="more than a file of"):
        StoredTable(str(path), floor=1 << 20).group(0).read(["frame"])
    path.write_bytes(repeated_text(100_000, 10_000))
    with pytest.raises(BadParquet, match="more than a file of"):
        StoredTable(str(path)).group(0).read(["name"])


def test_no_flipped_bit_goes_unnoticed(tmp_path: Path) -> None:
    path = table_file(tmp_path / "a.parquet")
    data, draw = path.read_bytes(), random.Random(0)
    mark = data.index(b"trackmill.sha256")
    for place in range(0, len(data), 23):
        if mark <= place < mark + 16:
            continue
        changed = bytearray(data)
        changed[place] ^= 1 << draw.randrange(8)
        path.write_bytes(changed)
        with pytest.raises(BadParquet):
            StoredTable(str(path))
    for cut in (1, 100, len(data) - 5):
        path.write_bytes(data[:-cut])
        with pytest.raises(BadParquet):
            StoredTable(str(path))


def test_any_byte_of_a_file_without_checksum_may_change(tmp_path: Path) -> None:
    path, draw = tmp_path / "a.parquet", random.Random(1)
    data = written(TABLE, row_group_size=300)
    for _ in range(300):
        changed = bytearray(data)
        for _ in range(3):
            changed[draw.randrange(len(data))] = draw.randrange(256)
        path.write_bytes(changed)
        try:
            everything(StoredTable(str(path)), ["key", "size", "box"])
        except BadParquet as error:
            assert "\n" not in str(error)
