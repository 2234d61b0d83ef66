"""Keys of samples, found by shard and offset when somebody asks: receipts have them, and so have the tars."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping

import pyarrow as pa
import pyarrow.compute as pc

from trackmill.pipeline.shards.layout import Layout
from trackmill.pipeline.shards.reader import manifest_tables
from trackmill.pipeline.shards.receipt_stream import read_unit
from trackmill.schemas.receipt import ShardInfo

_COLUMNS = pa.schema([("key", pa.string()), ("status", pa.string()), ("shard", pa.string()), ("offset", pa.int64())])
_SHARDS = 64
"""Shards whose keys stay in memory."""


class Keys:
    """Keys by place.

    Args:
        read: the keys of a shard by offset.
    """

    def __init__(self, read: Callable[[ShardInfo], Mapping[int, str]]) -> None:
        self._read = read
        self._recent: OrderedDict[str, Mapping[int, str]] = OrderedDict()

    def find(self, shard: ShardInfo, offset: int) -> str | None:
        """The key of the sample at a byte of a shard; None where it cannot be found now."""
        if shard.name not in self._recent:
            try:
                self._recent[shard.name] = self._read(shard)
            except (OSError, ValueError, KeyError):  # a name is wanted for a message: that must not fail in turn
                return None
            while len(self._recent) > _SHARDS:
                self._recent.popitem(last=False)
        self._recent.move_to_end(shard.name)
        return self._recent[shard.name].get(offset)


def keys_in_receipt(layout: Layout, unit: int, shard: str) -> dict[int, str]:
    """Keys of a shard by offset, by the receipt of its unit; raises what `read_unit` raises."""
    return _of_shard(read_unit(layout, unit, schema=_COLUMNS).table, shard)


def keys_in_manifest(layout: Layout, shard: str) -> dict[int, str]:
    """Keys of a shard by offset, by the manifest; raises what `manifest_tables` raises."""
    found: dict[int, str] = {}
    for table in manifest_tables(layout, _COLUMNS):
        own = _of_shard(table, shard)
        if found and not own:  # rows of a shard lie together
            break
        found |= own
    return found


def _of_shard(table: pa.Table, shard: str) -> dict[int, str]:
    own = table.filter(pc.and_(pc.equal(table["shard"], shard), pc.equal(table["status"], "ok")))
    return dict(zip(own["offset"].to_pylist(), own["key"].to_pylist()))
