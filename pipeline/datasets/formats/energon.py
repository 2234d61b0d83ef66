"""What Megatron Energon needs beside the shards: `.nv-meta`, and where each sample begins in its tar.

It is what `energon prepare` makes by reading every tar; here it comes from the receipts, so no shard is opened. The
table for random access by key, `index.sqlite`, is left to that command.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import orjson
import pyarrow as pa
from numpy.typing import NDArray

from trackmill.pipeline.shards.reader import Dataset
from trackmill.pipeline.shards.receipts import ROW_SCHEMA
from trackmill.pipeline.shards.totals import is_clip
from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.publish import publish_bytes
from trackmill.pipeline.storage.urls import join
from trackmill.schemas.errors import InputError

FOLDER = ".nv-meta"
_COLUMNS = pa.schema([ROW_SCHEMA.field(name) for name in ("source_id", "shard", "offset", "size", "frames")])
_DATASET = b"__module__: megatron.energon\n__class__: CrudeWebdataset\n"
_THREADS, _WAITING = 8, 64


def write_energon(dataset: Dataset, progress: Callable[[int], None]) -> tuple[int, int]:
    """Write what Energon needs into a data set; nothing that is there is changed.

    Split parts are `train`, which is all, and `pictures` and `clips`, by what a shard begins with.

    Args:
        dataset: opened.
        progress: called with the number of samples that are done.

    Returns:
        How many shards, and how many samples.

    Raises:
        InputError: tars alone, or no sample.
        BadReceipt: a receipt is damaged.
        OSError: could not be written.
    """
    if dataset.layout is None or dataset.recorded is None:
        raise InputError(f"{redact(dataset.url)}: tars without receipts: `energon prepare` reads them")
    counts: dict[str, int] = {}
    parts: dict[str, list[str]] = {"train": [], "pictures": [], "clips": []}
    with ThreadPoolExecutor(_THREADS, "export") as pool:
        waiting: deque[Future[None]] = deque()
        for shard, ends, clip in _shards(dataset):
            name = f"shards/{shard}"
            counts[name] = len(ends) - 1
            parts["train"].append(name)
            parts["clips" if clip else "pictures"].append(name)
            url = dataset.shard_url(shard).removesuffix(".tar") + ".tar.idx"
            waiting.append(pool.submit(publish_bytes, url, ends.astype("<u8").tobytes()))
            if len(waiting) > _WAITING:
                waiting.popleft().result()
            progress(len(ends) - 1)
        for future in waiting:
            future.result()
    if not counts:
        raise InputError(f"{redact(dataset.url)}: has no sample")
    folder = join(dataset.layout.root, FOLDER)
    split = {"split_parts": {name: listed for name, listed in parts.items() if listed}, "exclude": []}
    publish_bytes(join(folder, "dataset.yaml"), _DATASET)
    publish_bytes(join(folder, "split.yaml"), orjson.dumps(split, option=orjson.OPT_INDENT_2))  # JSON is YAML
    publish_bytes(join(folder, ".info.json"), orjson.dumps({"shard_counts": counts}, option=orjson.OPT_INDENT_2))
    return len(counts), sum(counts.values())


def _shards(dataset: Dataset) -> Iterator[tuple[str, NDArray[np.int64], bool]]:
    """Each shard with the bytes that its samples begin at and the last one ends at, and whether clips are first."""
    name, end, clip = "", 0, False
    starts: list[int] = []
    for table in dataset.stored.tables(_COLUMNS):
        order = np.lexsort((table["offset"].to_numpy(), table["shard"].to_numpy(zero_copy_only=False).astype(str)))
        table = table.take(pa.array(order))
        clips = is_clip(table)
        columns = (table[each].to_pylist() for each in ("shard", "offset", "size"))
        for row, (shard, offset, size) in enumerate(zip(*columns, strict=True)):
            if shard != name:
                if starts:
                    yield name, np.array([*starts, end], np.int64), clip
                name, starts, clip = shard, [], bool(clips[row])
            starts.append(offset)
            end = offset + size
    if starts:
        yield name, np.array([*starts, end], np.int64), clip
