"""Whether all units that were planned are there."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from trackmill.pipeline.shards.layout import Layout
from trackmill.pipeline.shards.receipts import done_units, typed_table
from trackmill.pipeline.storage.files import list_files, read_bytes
from trackmill.pipeline.storage.parquet.reading import MAX_TABLE_FILE_BYTES, ParquetData


def unfinished_units(layout: Layout) -> tuple[int, int]:
    """How many planned units have no receipt yet, and how many are planned; (0, 0) where there is no plan.

    A plan that cannot be read counts as none: `trackmill inspect --verify` says what is wrong with it.

    Raises:
        OSError: storage failed.
    """
    planned: set[int] = set()
    try:
        for file in list_files(layout.plan):
            if file.uri.endswith(".parquet"):
                data = ParquetData(read_bytes(file.uri, max_bytes=MAX_TABLE_FILE_BYTES))
                table = typed_table(data, pa.schema([("unit", pa.int64())]))
                planned.update(pc.unique(table["unit"]).to_pylist())
    except (FileNotFoundError, ValueError):
        return 0, 0
    return len(planned - set(done_units(layout))), len(planned)
