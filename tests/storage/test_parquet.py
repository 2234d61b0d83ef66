"""Parquet from anybody: right tables of every encoding, one clear line for files that unfold, lie or are damaged."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.storage import parquet_bombs as bombs
from trackmill.pipeline.storage.parquet import reading as parquet
from trackmill.pipeline.storage.parquet.reading import BadParquet, ParquetData, parquet_metadata

TABLE = pa.table(
    {
        "number": pa.array([1, None, 3]),
        "text": pa.array(["x", None, "yy"]),
        "list": pa.array([[1.0, 2.0], [3.0], None]),
        "box": pa.array([[1, 2, 3, 4]] * 3, pa.list_(pa.float32(), 4)),
        "large": pa.array(["x", "y", "é"], pa.large_string()),
        "words": pa.array(["x", "y", "x"]).dictionary_encode(),
        "flag": pa.array([True, False, None]),
        "inner": pa.array([{"a": 1}] * 3),
    }
)
COLUMNS = TABLE.column_names[:-1]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_dictionary": False},
        {"data_page_version": "2.0"},
        {"version": "1.0", "compression": "none"},
        {"row_group_size": 1, "write_page_checksum": True},
        {"store_schema": False},
        {"use_dictionary": False, "column_encoding": {"text": "DELTA_BYTE_ARRAY", "large": "DELTA_LENGTH_BYTE_ARRAY"}},
        {"use_dictionary": False, "use_byte_stream_split": ["list"], "compression": "gzip"},
    ],
    ids=str,
)
def test_every_encoding_gives_the_table(options: dict[str, Any]) -> None:
    buffer = io.BytesIO()
    pq.write_table(TABLE.replace_schema_metadata({b"made": b"here"}), buffer, **options)
    file = ParquetData(buffer.getvalue())
    assert file.num_rows == 3
    assert options == {"store_schema": False} or file.metadata[b"made"] == b"here"
    assert file.read(COLUMNS).to_pydict() == TABLE.select(COLUMNS).to_pydict()
    assert file.read(["large", "number"]).column_names == ["large", "number"]
    with pytest.raises(BadParquet, match="column 'inner' holds struct"):
        file.read(["inner"])
    with pytest.raises(BadParquet, match="no column 'other'"):
        file.read(["number", "other"])


FLOOR = 32 << 20
"""Less than the default, so that the files are made fast."""

BOMBS: list[tuple[str, Callable[[], bytes], str]] = [
    ("a number repeated", lambda: bombs.repeated_number(4 << 20), "'frame' would take .* bytes in memory"),
    ("a text repeated", lambda: bombs.repeated_text(100_000, 1_000_000), "'name' .*would take 100,0"),
    ("long plain texts", lambda: bombs.repeated_text(60, 1_000_000, use_dictionary=False), "'name' .*would take"),
    (
        "texts that repeat the one before",
        lambda: bombs.repeated_text(60, 1_000_000, use_dictionary=False, column_encoding={"name": "DELTA_BYTE_ARRAY"}),
        "'name' would take",
    ),
    ("long lists", lambda: bombs.long_lists(3, 1_000_000), "'name' would take"),
    ("a page that says 2 GB", lambda: bombs.one_page(10, unpacked=2_000_000_000), "would take 2,000,"),
    ("missing values without end", lambda: bombs.one_page(2_000_000_000), "would take"),
    ("more rows than values", lambda: bombs.one_page(2_000_000_000, values=10), "damaged"),
    ("fewer rows than values", lambda: bombs.one_page(10, values=2_000_000_000), "damaged"),
    ("columns inside columns", lambda: bombs.nested_schema(50_000), "too deeply nested"),
    ("a crowded footer", lambda: bombs.crowded_footer(200_000), "not a readable Parquet file"),
    ("a footer beyond its limit", lambda: bombs.crowded_footer(3_000_000), "footer has .*more than the limit of"),
    ("no Parquet", lambda: b"PK\3\4" * 9, "not a Parquet file"),
    ("nothing", lambda: b"", "not a Parquet file"),
]
"""What a file holds, its bytes, and what is said of it. None is larger than some megabytes."""


@pytest.mark.parametrize(("make", "said"), [bomb[1:] for bomb in BOMBS], ids=[bomb[0] for bomb in BOMBS])
def test_a_file_that_unfolds_is_refused_before_it_does(make: Callable[[], bytes], said: str) -> None:
    data = make()
    before = pa.total_allocated_bytes()
    with pytest.raises(BadParquet, match=said):
        file = ParquetData(data, FLOOR)
        file.read([name for name in ("frame", "name") if name in file.schema.names])
    assert pa.total_allocated_bytes() - before < 64 << 20
    assert "\n" not in said


def test_large_files_may_take_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a file may take follows its own size, so that a real table of millions of rows is read."""
    table = pa.table({"frame": np.random.default_rng(0).integers(0, 1 << 60, 100_000)})
    data = bombs.written(table)
    monkeypatch.setattr(parquet, "MEMORY_PER_BYTE", 8)
    assert ParquetData(data, floor=1000).read(["frame"]).equals(table)
    with pytest.raises(BadParquet, match="100,000 rows would take 100,000,000 bytes in memory, more than a file of"):
        ParquetData(data, floor=1000).read(["frame"], row_bytes=1000)


def test_a_flipped_bit_is_found_where_pages_have_checksums() -> None:
    data = bytearray(
        bombs.written(pa.table({"frame": np.arange(1000)}), write_page_checksum=True, use_dictionary=False)
    )
    data[300] ^= 1
    with pytest.raises(BadParquet, match="damaged: the checksum of a page differs"):
        ParquetData(bytes(data)).read(["frame"])


def test_any_byte_may_change() -> None:
    """Right columns, or one line; never another error, and never a wait."""
    data = bombs.written(pa.table({"frame": np.arange(40), "name": ["a", "bb"] * 20}))
    generator = np.random.default_rng(0)
    refused = 0
    for _ in range(400):
        changed = bytearray(data)
        for place in generator.integers(0, len(data), generator.integers(1, 4)):
            changed[place] = generator.integers(256)
        try:
            file = ParquetData(bytes(changed))
            file.read(["frame", "name"])
        except BadParquet as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 100


def test_metadata_is_read_from_the_end_alone(tmp_path: Path) -> None:
    table = pa.table({"frame": np.arange(9)}).replace_schema_metadata({b"made": b"here"})
    path = tmp_path / "table.parquet"
    path.write_bytes(bombs.written(table))
    with open(path, "rb") as handle:
        assert parquet_metadata(handle, path.stat().st_size)[b"made"] == b"here"
    path.write_bytes(bombs.crowded_footer(3_000_000))
    with open(path, "rb") as handle, pytest.raises(BadParquet, match="more than the limit of"):
        parquet_metadata(handle, path.stat().st_size)


READ_ALL = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
from tests.storage.test_parquet import BOMBS, FLOOR
from trackmill.pipeline.storage.parquet.reading import BadParquet, ParquetData
for name in sys.argv[1:]:
    try:
        file = ParquetData(open(name, "rb").read(), FLOOR)
        file.read([column for column in ("frame", "name") if column in file.schema.names])
    except BadParquet as error:
        print(error)
"""


def test_all_of_them_end_in_a_line_below_three_gigabytes(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.parquet" for number in range(len(BOMBS))]
    for path, (_, make, _) in zip(paths, BOMBS, strict=True):
        path.write_bytes(make())
    command = [sys.executable, "-c", READ_ALL, *map(str, paths)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert ended.returncode == 0, ended.stderr
    assert len(ended.stdout.splitlines()) == len(BOMBS), ended.stdout
