"""Which sample goes into which unit of the new data set: from the receipts alone, the same however it is then done."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from trackmill.pipeline.datasets.inputs import Source
from trackmill.pipeline.datasets.selection import Chooser, Selection
from trackmill.pipeline.shards.layout import Layout
from trackmill.pipeline.shards.tar import END
from trackmill.pipeline.shards.totals import is_clip
from trackmill.pipeline.storage.parquet.checksum import add_checksum
from trackmill.pipeline.storage.publish import publish_file
from trackmill.pipeline.storage.scratch import scratch_file
from trackmill.pipeline.storage.urls import join
from trackmill.schemas.errors import InputError

Duplicates = Literal["refuse", "first"]
PLAN_FILE = "plan-000.parquet"
_PLANNED = pa.schema([("source_id", pa.string()), ("key", pa.string()), ("unit", pa.int64())])
_UNITS_WANTED, _UNIT_FRAMES = 64, (8, 512)
"""As mining cuts: a unit is what a sidecar's worker does at once, so a small data set must not be one of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Where a unit ends, which is one shard.

    Args:
        max_bytes, max_samples: of a shard.
        unit_frames: of a unit; 0: a sixty-fourth of all, between 8 and 512.
    """

    max_bytes: int = 256 << 20
    max_samples: int = 4096
    unit_frames: int = 0


@dataclass(frozen=True, slots=True)
class Piece:
    """Some rows of one block of one input, in their order.

    Args:
        source: place of the input.
        block: see `trackmill.pipeline.shards.rows.RowBlocks`.
        rows: (N,) int32 places in the block.
    """

    source: int
    block: int
    rows: NDArray[np.int32]


@dataclass(slots=True)
class UnitPlan:
    """One unit of the new data set, in the order of its samples."""

    pieces: list[Piece] = field(default_factory=list)
    samples: int = 0


@dataclass(slots=True, kw_only=True)
class Plan:
    """All units of the new data set. Some 20 bytes of memory a sample.

    Args:
        units: in their order.
        samples: in all.
        of: samples that the inputs have.
        twice: samples that were left out because an earlier input has them.
        unscored: samples that were left out because their receipts have no mean score, and one was asked for.
    """

    units: list[UnitPlan]
    samples: int
    of: int
    twice: int
    unscored: int


def make_plan(sources: Sequence[Source], selection: Selection, limits: Limits, duplicates: Duplicates) -> Plan:
    """Choose the samples and cut them into units. A unit holds pictures or clips, never both.

    Raises:
        InputError: nothing is left; or two inputs have one sample and `duplicates` refuses that (names it).
        BadReceipt: a receipt is damaged, or changed meanwhile.
        OSError: storage failed for good.
    """
    chooser = Chooser(selection)
    chosen, of, twice = _choose(sources, chooser, duplicates)
    samples = sum(len(each.rows) for each in chosen)
    if not samples:
        advice = "ask for more of them" if of else "the input has none, as trackmill inspect shows"
        if of and chooser.selection.least.get("objects") and not chooser.any_objects:
            advice = "none has annotated objects: --min-proposals counts what was proposed"
        elif chooser.unscored:
            why = "an older version mined them, or all scores are 0"
            advice = f"{chooser.unscored:,} have no mean score ({why}): leave its bound out"
        raise InputError(f"none of the {of:,} samples is left: an empty data set is not written; {advice}")
    frames = sum(int(each.frames.sum()) for each in chosen)
    low, high = _UNIT_FRAMES
    unit_frames = limits.unit_frames or int(np.clip(-(-frames // _UNITS_WANTED), low, high))
    units = list(_cut(chosen, limits, unit_frames))
    return Plan(units=units, samples=samples, of=of, twice=twice, unscored=chooser.unscored)


def store_plan(layout: Layout, plan: Plan, sources: Sequence[Source]) -> None:
    """Write down what is to be there in the end, so that a half-made data set is known for one."""
    url = join(layout.plan, PLAN_FILE)
    path = scratch_file(url)
    try:
        with pq.ParquetWriter(path, _PLANNED, compression="zstd", write_page_checksum=True) as writer:
            for number, unit in enumerate(plan.units):
                for piece in unit.pieces:
                    rows = rows_of(sources, piece).select(["source_id", "key"])
                    writer.write_table(rows.append_column("unit", pa.repeat(pa.scalar(number), len(rows))))
        add_checksum(path)
        publish_file(path, url)
    finally:
        path.unlink(missing_ok=True)


def rows_of(sources: Sequence[Source], piece: Piece) -> pa.Table:
    """The rows of a piece, with all columns."""
    blocks = sources[piece.source].dataset.blocks
    assert blocks is not None
    return blocks.block(piece.block).take(pa.array(piece.rows))


@dataclass(slots=True, kw_only=True)
class _Chosen:
    """The wanted rows of one block, and what units are cut by."""

    source: int
    block: int
    rows: NDArray[np.int32]
    sizes: NDArray[np.int64]
    frames: NDArray[np.int32]
    clips: NDArray[np.bool_]


def _choose(sources: Sequence[Source], chooser: Chooser, duplicates: Duplicates) -> tuple[list[_Chosen], int, int]:
    earlier = np.empty(0, np.uint64)
    chosen, of, twice = [], 0, 0
    for number, source in enumerate(sources):
        blocks = source.dataset.blocks
        assert blocks is not None
        own: list[NDArray[np.uint64]] = []
        for block, table in enumerate(blocks.tables()):
            keep = chooser.choose(table)
            of += int(np.count_nonzero(table["status"].to_numpy(zero_copy_only=False) == "ok"))
            if len(sources) > 1:
                keys = table["key"].to_pylist()
                digests = np.fromiter((xxh3_64_intdigest(key.encode()) for key in keys), np.uint64, len(keys))
                again = keep & _within(digests, earlier)
                if again.any() and duplicates == "refuse":
                    key = keys[int(np.flatnonzero(again)[0])]
                    raise InputError(
                        f"{source.url}: an earlier input has {key} as well: --duplicates first takes it from there"
                    )
                twice += int(np.count_nonzero(again))
                keep &= ~again
                own.append(digests[keep])
            rows = np.flatnonzero(keep).astype(np.int32)
            if len(rows):
                chosen.append(
                    _Chosen(
                        source=number,
                        block=block,
                        rows=rows,
                        sizes=table["size"].to_numpy()[rows],
                        frames=table["frames"].to_numpy()[rows].astype(np.int32),
                        clips=is_clip(table)[rows],
                    )
                )
        # Keys of one input are unique, as verify says of it, so only inputs are compared with each other.
        earlier = np.sort(np.concatenate([earlier, *own]))
    return chosen, of, twice


def _within(digests: NDArray[np.uint64], earlier: NDArray[np.uint64]) -> NDArray[np.bool_]:
    if not len(earlier):
        return np.zeros(len(digests), np.bool_)
    found: NDArray[np.bool_] = earlier[np.minimum(np.searchsorted(earlier, digests), len(earlier) - 1)] == digests
    return found


def _cut(chosen: Sequence[_Chosen], limits: Limits, unit_frames: int) -> Iterator[UnitPlan]:
    unit, num_bytes, num_frames, clips = UnitPlan(), len(END), 0, False
    for each in chosen:
        begin = 0
        rows = zip(each.sizes.tolist(), each.frames.tolist(), each.clips.tolist())
        for place, (size, frames, clip) in enumerate(rows):
            full = (
                num_bytes + size > limits.max_bytes
                or num_frames + frames > unit_frames
                or unit.samples >= limits.max_samples
                or clip != clips
            )
            if full and unit.samples:
                if place > begin:
                    unit.pieces.append(Piece(each.source, each.block, each.rows[begin:place]))
                yield unit
                unit, num_bytes, num_frames, begin = UnitPlan(), len(END), 0, place
            clips = clip
            unit.samples += 1
            num_bytes += size
            num_frames += frames
        unit.pieces.append(Piece(each.source, each.block, each.rows[begin:]))
    yield unit
