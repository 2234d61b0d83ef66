"""A flipped bit anywhere in a table of ours is one clear line; other programs read the table as before."""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.make_dataset import make_dataset
from trackmill.pipeline.loader.catalog import read_catalog
from trackmill.pipeline.shards.layout import Layout
from trackmill.pipeline.shards.manifest import write_manifest
from trackmill.pipeline.shards.reader import open_dataset
from trackmill.pipeline.shards.receipts import BadReceipt, read_receipt, to_parquet
from trackmill.pipeline.storage.parquet.checksum import CHECKSUM_BYTES, add_checksum, with_checksum
from trackmill.pipeline.storage.parquet.reading import BadParquet, ParquetData, parquet_metadata

TABLE = pa.table({"key": ["a", "b", "c"] * 50, "size": np.arange(150)}).replace_schema_metadata({b"made": b"here"})


def every_flip(data: bytes, step: int = 1) -> list[bytes]:
    """The file with one bit changed, at every `step`-th byte."""
    draw, flipped = random.Random(0), []
    for place in range(0, len(data), step):
        changed = bytearray(data)
        changed[place] ^= 1 << draw.randrange(8)
        flipped.append(bytes(changed))
    return flipped


def test_other_programs_read_a_table_with_a_checksum_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    path.write_bytes(to_parquet(TABLE))
    for found in (pq.read_table(path), pq.ParquetFile(path, page_checksum_verification=True).read()):
        assert found.equals(TABLE) and found.schema.metadata == TABLE.schema.metadata
    buffer = io.BytesIO()
    pq.write_table(TABLE, buffer, compression="zstd", write_page_checksum=True)
    path.write_bytes(buffer.getvalue())
    add_checksum(path)
    assert path.read_bytes() == with_checksum(buffer.getvalue()) == to_parquet(TABLE)
    assert path.stat().st_size == len(buffer.getvalue()) + CHECKSUM_BYTES


def test_no_flipped_bit_of_a_table_goes_unnoticed() -> None:
    data = to_parquet(TABLE)
    mark = data.index(b"trackmill.sha256")
    for place, changed in enumerate(every_flip(data)):
        if mark <= place < mark + 16:  # its mark is damaged: read as a file of an older version
            assert ParquetData(changed).read(["key", "size"]).equals(TABLE.replace_schema_metadata(None))
            continue
        with pytest.raises(BadParquet, match=r"damaged|not a Parquet file|not a readable|footer"):
            ParquetData(changed)
    for cut in (1, 8, 50, 200, len(data) - 3):
        with pytest.raises(BadParquet):
            ParquetData(data[:-cut])


def test_whoever_reads_the_end_alone_notices_what_is_flipped_there() -> None:
    data = to_parquet(TABLE)
    mark = data.index(b"trackmill.sha256")
    for place, changed in enumerate(every_flip(data)):
        if place >= mark + 16:
            with pytest.raises(BadParquet):
                parquet_metadata(io.BytesIO(changed), len(changed))
        else:
            assert parquet_metadata(io.BytesIO(changed), len(changed))[b"made"] == b"here"


def test_a_table_without_a_seal_is_read_as_an_older_version_wrote_it() -> None:
    buffer = io.BytesIO()
    pq.write_table(TABLE, buffer)
    assert ParquetData(buffer.getvalue()).read(["key", "size"]).num_rows == 150


@pytest.mark.parametrize("damaged", ["receipt", "manifest", "shards of the manifest"])
def test_a_flipped_bit_in_receipts_or_manifest_is_one_line_that_names_the_file(damaged: str, tmp_path: Path) -> None:
    root = make_dataset(str(tmp_path), num_images=3).root
    layout = Layout(root)
    write_manifest(layout)
    first = sorted((tmp_path / "receipts").iterdir())[0]
    path = {"receipt": first, "manifest": Path(layout.manifest)}.get(damaged, Path(layout.manifest_shards))
    if damaged != "receipt":
        for receipt in (tmp_path / "receipts").iterdir():
            receipt.unlink()
    reads: list[Callable[[], object]] = [lambda: open_dataset(root), lambda: read_catalog(root)]
    if damaged == "receipt":
        reads.append(lambda: read_receipt(str(path)))
    whole = path.read_bytes()
    mark = whole.index(b"trackmill.sha256")
    for place, changed in enumerate(every_flip(whole)):
        if place % 97 or mark <= place < mark + 16:
            continue
        path.write_bytes(changed)
        for read in reads:
            with pytest.raises(BadReceipt, match=rf"{path.name}: .*mine again") as caught:
                read()
            assert "\n" not in str(caught.value)
    path.write_bytes(whole)
    assert len(read_catalog(root)) == len(open_dataset(root).stored)
