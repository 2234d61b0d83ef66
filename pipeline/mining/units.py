"""Cutting items into units, the pieces of work that one worker does in one go and that become one shard each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from trackmill.pipeline.mining.settings import ShardSettings
from trackmill.pipeline.sources.item_columns import item_batches
from trackmill.schemas.media import WorkItem

_UNITS_WANTED = 64
_UNIT_FRAMES_LIMITS = (8, 512)
CUT_COLUMNS = ["uri", "offset", "frames"]
"""Of `ITEM_SCHEMA`: what units are cut by."""


def frames_per_unit(total_frames: int, settings: ShardSettings) -> int:
    """How many frames a unit should hold: as set, or by the size of the corpus.

    The number of workers has no say in it, or another cluster would cut other shards.
    """
    if settings.unit_frames:
        return settings.unit_frames
    low, high = _UNIT_FRAMES_LIMITS
    return int(np.clip(-(-total_frames // _UNITS_WANTED), low, high))


def cut_units(items: Sequence[WorkItem], settings: ShardSettings) -> list[list[WorkItem]]:
    """Group items, in the order given, into units of about `frames_per_unit` frames; see `UnitCutter`."""
    cutter = UnitCutter(survey(batch for batch in item_batches(items)), settings)
    units: list[list[WorkItem]] = []
    number, _ = cutter.cut(np.array([item.frames for item in items], np.int64))
    for item, unit in zip(items, number.tolist()):
        if unit == len(units):
            units.append([])
        units[-1].append(item)
    return units


@dataclass(slots=True)
class Survey:
    """What has to be known of all items before the first unit is cut.

    Args:
        items, frames: in all.
        starts: of each run of items that are byte ranges of one file: the row that it begins at.
        ends: the row behind it.
        sums: its frames.
    """

    items: int = 0
    frames: int = 0
    starts: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    sums: list[int] = field(default_factory=list)


def survey(batches: Iterable[pa.RecordBatch | pa.Table]) -> Survey:
    """Look at all items once.

    Args:
        batches: with the columns `CUT_COLUMNS`, in the order in which they are going to be cut.
    """
    seen = Survey()
    last = ""
    for batch in batches:
        frames = batch["frames"].to_numpy(zero_copy_only=False) if len(batch) else np.empty(0, np.int64)
        inside = batch["offset"].to_numpy(zero_copy_only=False) >= 0 if len(batch) else np.empty(0, bool)
        if inside.any():
            last = _add_runs(seen, batch["uri"], inside, frames, last)
        else:
            last = ""
        seen.items += len(batch)
        seen.frames += int(frames.sum())
    return seen


def _add_runs(
    seen: Survey, uris: pa.Array | pa.ChunkedArray, inside: NDArray[np.bool_], frames: NDArray[np.int64], last: str
) -> str:
    """Note the runs of a batch, of which the first may go on with the `last` file; returns the file that it ends in."""
    codes = (uris.combine_chunks() if isinstance(uris, pa.ChunkedArray) else uris).dictionary_encode()
    ids = np.where(inside, codes.indices.to_numpy(zero_copy_only=False), -1)
    begins = np.flatnonzero(np.concatenate(([True], ids[1:] != ids[:-1])))
    ends = np.append(begins[1:], len(ids))
    sums = np.add.reduceat(frames, begins)
    for begin, end, total in zip(begins.tolist(), ends.tolist(), sums.tolist()):
        name = codes.dictionary[int(ids[begin])].as_py() if ids[begin] >= 0 else ""
        if name and name == last and begin == 0:
            seen.ends[-1] = seen.items + end
            seen.sums[-1] += total
        elif name:
            seen.starts.append(seen.items + begin)
            seen.ends.append(seen.items + end)
            seen.sums.append(total)
        last = name
    return last


class UnitCutter:
    """Gives each item its unit and its position in it, in one pass.

    A unit is filled up to `frames_per_unit`; a longer item has one of its own. Where a tar holds as much as a unit or
    more, a unit ends with it, so that whoever works on a unit reads one piece of one tar. Small tars share units.

    Args:
        seen: of the same items, see `survey`.
        settings: of shards.
        first_unit: number of the first unit.
    """

    def __init__(self, seen: Survey, settings: ShardSettings, first_unit: int = 0) -> None:
        self.target = frames_per_unit(seen.frames, settings)
        large = np.array(seen.sums, np.int64) >= self.target
        rows = np.concatenate([np.array(seen.starts, np.int64)[large], np.array(seen.ends, np.int64)[large]])
        self._borders = np.unique(rows)
        self._row = 0
        self._unit, self._position, self._frames = first_unit, 0, 0

    def cut(self, frames: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Unit and position of the next items.

        Args:
            frames: (N,) of each.
        """
        count = len(frames)
        first, last = np.searchsorted(self._borders, [self._row, self._row + count])
        borders = self._borders[first:last] - self._row
        self._row += count
        if not len(borders) and self._frames == self._position and bool((frames == 1).all()):
            return self._cut_singles(count)
        sums = np.concatenate(([0], np.cumsum(frames)))
        units, positions, lengths = [], [], []
        stops = [*borders.tolist(), count]
        begin = 0
        while begin < count:
            if begin == stops[0]:
                stops.pop(0)
                self._next_unit()
            end = int(np.searchsorted(sums, sums[begin] + self.target - self._frames, "right")) - 1
            if end <= begin and self._position:
                self._next_unit()
                continue
            end = min(max(end, begin + 1), stops[0])
            units.append(self._unit)
            positions.append(self._position)
            lengths.append(end - begin)
            self._position += end - begin
            self._frames += int(sums[end] - sums[begin])
            begin = end
        starts = np.cumsum([0, *lengths[:-1]])
        offsets = np.repeat(np.array(positions, np.int64) - starts, lengths)
        return np.repeat(np.array(units, np.int64), lengths), np.arange(count) + offsets

    def _cut_singles(self, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        places = np.arange(self._position, self._position + count)
        units, positions = self._unit + places // self.target, places % self.target
        if count:
            self._unit, self._position = int(units[-1]), int(positions[-1]) + 1
            self._frames = self._position
        return units, positions

    def _next_unit(self) -> None:
        if self._position:
            self._unit += 1
        self._position = self._frames = 0
