"""Samples of old shards as they lie, byte for byte, in a shard of a new data set."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from trackmill.pipeline.datasets.inputs import Source
from trackmill.pipeline.datasets.plan import Limits, UnitPlan, rows_of
from trackmill.pipeline.shards.layout import Layout
from trackmill.pipeline.shards.rows import objects
from trackmill.pipeline.shards.stream import BadShardMember, RawSample, split_piece
from trackmill.pipeline.shards.tar import checksum
from trackmill.pipeline.shards.writer import ShardWriter
from trackmill.pipeline.storage.files import read_bytes
from trackmill.schemas.receipt import ReceiptRow, ShardInfo

_AT_ONCE = 16 << 20
"""Neighbouring samples are read together up to so many bytes: one request instead of a hundred."""
_SKIPPED = 256 << 10
"""Bytes between two samples that are read too, since a further request takes longer."""


class Taken(NamedTuple):
    """A sample of an input: which input, and its row there."""

    source: int
    row: ReceiptRow


def taken_rows(sources: Sequence[Source], unit: UnitPlan) -> list[Taken]:
    """The samples of a unit, in their order."""
    return [Taken(piece.source, row) for piece in unit.pieces for row in objects(rows_of(sources, piece))]


def copy_samples(
    layout: Layout, number: int, limits: Limits, sources: Sequence[Source], taken: Sequence[Taken]
) -> tuple[list[ReceiptRow], list[ShardInfo]]:
    """Write the shard of a unit, and publish it.

    Args:
        layout: of the new data set.
        number: of the unit.
        limits: of shards.
        sources: inputs.
        taken: what goes into it.

    Returns:
        The rows for its receipt, and its shards.

    Raises:
        BadShardMember: a sample is not what its receipt says.
        OSError: storage failed for good.
    """
    rows = []
    writer = ShardWriter(layout, number, max(1, limits.max_bytes), limits.max_samples)
    with writer:
        for position, (each, raw) in enumerate(zip(taken, _read(sources, taken))):
            shard, offset, size = writer.write(raw.members)
            place = {"shard": shard, "offset": offset, "size": size, "checksum": writer.checksum}
            rows.append(dataclasses.replace(each.row, unit=number, position=position, **place))  # type: ignore[arg-type]
    writer.remove_leftovers()
    return rows, writer.shards


def _read(sources: Sequence[Source], taken: Sequence[Taken]) -> Iterator[RawSample]:
    """The members of each sample, checked against its row."""
    begin = 0
    while begin < len(taken):
        end = _end_of_read(taken, begin)
        first, last = taken[begin].row, taken[end - 1].row
        dataset = sources[taken[begin].source].dataset
        data = read_bytes(dataset.shard_url(first.shard), first.offset, last.offset + last.size - first.offset)
        for each in taken[begin:end]:
            start = each.row.offset - first.offset
            yield _sample(each.row, data[start : start + each.row.size])
        begin = end


def _end_of_read(taken: Sequence[Taken], begin: int) -> int:
    """Behind the last sample that is read together with the one at `begin`."""
    source, first = taken[begin]
    reach = first.offset + first.size
    for place in range(begin + 1, len(taken)):
        other, row = taken[place]
        near = 0 <= row.offset - reach <= _SKIPPED and row.offset + row.size - first.offset <= _AT_ONCE
        if other != source or row.shard != first.shard or not near:
            return place
        reach = row.offset + row.size
    return len(taken)


def _sample(row: ReceiptRow, piece: bytes) -> RawSample:
    member = f"{row.key}.json"
    if row.size <= 0 or row.offset < 0 or len(piece) != row.size:
        raise BadShardMember(
            row.shard, member, f"there are {len(piece)} bytes at {row.offset}, its receipt says {row.size}"
        )
    if row.checksum and checksum(piece) != row.checksum:
        raise BadShardMember(row.shard, member, "is damaged: the checksum in its receipt is another")
    raw = split_piece(piece, row.shard, row.offset)
    if raw.key != row.key:
        raise BadShardMember(row.shard, member, f"is not at byte {row.offset} as its receipt says: {raw.key!r} is")
    return raw
