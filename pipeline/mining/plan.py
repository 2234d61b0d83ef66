"""The plan: every item, in numbered units, written once so that each later run continues the same work.

A second run with the same inputs does not even look into them again. New files extend the plan with further units; the
units that are there keep their numbers, because receipts and shards are named after them.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from trackmill.pipeline.console.progress_line import ProgressLine
from trackmill.pipeline.mining.plan_files import SCHEMA as SCHEMA
from trackmill.pipeline.mining.plan_files import Cut, MadePart, PlanPart, write_part
from trackmill.pipeline.mining.plan_files import PlanError as PlanError
from trackmill.pipeline.mining.settings import ShardSettings
from trackmill.pipeline.mining.units import CUT_COLUMNS, UnitCutter, survey
from trackmill.pipeline.shards.layout import Layout
from trackmill.pipeline.sources.item_columns import ITEM_FIELDS, item_batches, items_of
from trackmill.pipeline.storage.list_files import list_files
from trackmill.pipeline.storage.listing import Listing
from trackmill.pipeline.storage.publish import publish_copy
from trackmill.pipeline.storage.urls import join
from trackmill.schemas.media import WorkItem


class Plan:
    """All units of a data set. In memory is what is known of each unit; its items are read when they are asked for.

    Args:
        parts: the files of the plan, in order; the last one may be a `MadePart`, which is not stored yet.
        listing: digest of the input listing that the newest part of the plan was made from.

    Raises:
        PlanError: the parts do not follow each other. All methods that read items raise it where a file is damaged.
    """

    def __init__(self, parts: Sequence[PlanPart] = (), listing: str = "") -> None:
        self._parts = list(parts)
        self.listing = listing
        self._starts = np.cumsum([0, *(part.num_rows for part in self._parts)]).tolist()
        filled = [part for part in self._parts if part.num_rows]
        self._units = np.concatenate([part.units for part in filled]) if filled else np.empty(0, np.int64)
        self._frames = np.concatenate([part.frames for part in filled]) if filled else np.empty(0, np.int64)
        for before, after in pairwise(filled):
            if after.units[0] <= before.units[-1]:
                raise PlanError(
                    f"{after.name}: unit {after.units[0]} stands in {before.name} too; restore both or use another "
                    "--output"
                )
        self._first_units = [int(part.units[0]) for part in filled]
        self._filled = filled

    @property
    def parts(self) -> int:
        """Number of plan files that are stored."""
        return len(self._parts) - (self.new is not None)

    @property
    def new(self) -> MadePart | None:
        """The part that is not stored yet."""
        last = self._parts[-1] if self._parts else None
        return last if isinstance(last, MadePart) else None

    @property
    def all_parts(self) -> list[PlanPart]:
        """The parts of it, in order."""
        return list(self._parts)

    @property
    def listings(self) -> frozenset[str]:
        """Digests of all listings that were planned completely."""
        return frozenset({self.listing, *(part.listing for part in self._parts)} - {""})

    @property
    def num_items(self) -> int:
        """Number of items."""
        return int(self._starts[-1])

    @property
    def num_frames(self) -> int:
        """Number of frames over all items."""
        return int(self._frames.sum())

    @property
    def num_units(self) -> int:
        """Number of units; they are numbered from 0 without gaps."""
        return int(self._units[-1]) + 1 if len(self._units) else 0

    def frames_in(self, units: Iterable[int]) -> int:
        """Number of frames over some units."""
        return int(self._frames[np.isin(self._units, np.fromiter(units, np.int64))].sum())

    def items_in(self, units: Iterable[int]) -> int:
        """Number of items over some units."""
        wanted = np.fromiter(units, np.int64)
        return sum(int(np.diff(part.starts)[np.isin(part.units, wanted)].sum()) for part in self._filled)

    def unit(self, number: int) -> list[WorkItem]:
        """The items of a unit, in order."""
        place = bisect_right(self._first_units, number) - 1
        if place < 0:
            return []
        part = self._filled[place]
        row = int(np.searchsorted(part.units, number))
        if row == len(part.units) or part.units[row] != number:
            return []
        return items_of(part.rows(int(part.starts[row]), int(part.starts[row + 1])))

    def items(self, start: int, stop: int) -> list[WorkItem]:
        """Items by their place in the whole plan."""
        found: list[WorkItem] = []
        for part, begin in zip(self._parts, self._starts):
            first, last = max(0, start - begin), min(part.num_rows, stop - begin)
            if first < last:
                found += items_of(part.rows(first, last))
        return found

    def batches(self, columns: Sequence[str] = SCHEMA.names) -> Iterator[pa.Table]:
        """Some columns of all items, some ten thousand rows at a time."""
        for part in self._parts:
            yield from part.batches(columns)

    def find(self, source_ids: Iterable[str]) -> list[WorkItem]:
        """The items that have one of these identities, in the order of the plan."""
        wanted = pa.array(sorted(set(source_ids)), pa.string())
        found: list[WorkItem] = []
        for rows in self.batches(ITEM_FIELDS) if len(wanted) else ():
            found += items_of(rows.filter(pc.is_in(rows["source_id"], wanted)))
        return found

    def sources(self) -> list[str]:
        """Names of the sources that occur."""
        return sorted({name for part in self._parts for name in part.items_of})

    def items_of(self) -> dict[str, int]:
        """Number of items of each source."""
        return dict(sum((Counter(part.items_of) for part in self._parts), Counter()))

    def frames_of(self) -> dict[str, int]:
        """Number of frames of each source."""
        return dict(sum((Counter(part.frames_of) for part in self._parts), Counter()))

    def pictures(self) -> frozenset[str]:
        """URIs of the pictures that are planned one by one."""
        found: set[str] = set()
        for rows in self.batches(["source", "uri"]) if "images" in self.sources() else ():
            found.update(rows.filter(pc.equal(rows["source"], "images"))["uri"].to_pylist())
        return frozenset(found)

    def source_ids(self) -> set[str]:
        """Identities of all planned items."""
        return {name for rows in self.batches(["source_id"]) for name in rows["source_id"].to_pylist()}


def listing_digest(files: Listing, source: str, limit: int | None) -> str:
    """Digest of what a plan is made from: names and sizes of all input files, the source asked for, and the limit."""
    digest = hashlib.sha256(f"{source}\0{limit}".encode())
    for batch in files.batches():
        lines = pc.binary_join_element_wise(batch["uri"], pc.cast(batch["size"], pa.string()), "\0")
        if len(lines):
            digest.update(b"\n".join(pc.cast(lines, pa.binary()).to_pylist()) + b"\n")
    return digest.hexdigest()


def read_plan(layout: Layout) -> Plan | None:
    """The stored plan, or None if there is none yet.

    Raises:
        PlanError: a plan file is damaged.
    """
    try:
        files = [file for file in list_files(layout.plan) if file.uri.endswith(".parquet")]
    except FileNotFoundError:
        return None
    parts = [PlanPart(file.uri) for file in files]
    return Plan(parts, parts[-1].listing) if parts else None


def extend(stored: Plan | None, items: Iterable[WorkItem], settings: ShardSettings, listing: str | None = None) -> Plan:
    """The plan with the items that are not planned yet as further units; they are its `new` part.

    Args:
        stored: what is planned.
        items: what should be.
        settings: how large units are.
        listing: see `Plan`; None: as before.
    """
    known = stored.source_ids() if stored else set()
    batches = list(item_batches(item for item in items if item.source_id not in known))
    return add_rows(stored, lambda columns: (rows.select(columns) for rows in batches), settings, listing)


def add_rows(
    stored: Plan | None,
    batches: Callable[[list[str]], Iterable[pa.RecordBatch]],
    settings: ShardSettings,
    listing: str | None = None,
) -> Plan:
    """The plan with items that are not planned yet, as `extend`; they are written as they come.

    Args:
        stored, settings, listing: see `extend`.
        batches: gives some columns of all new items; called twice.
    """
    stored = stored or Plan()
    listing = stored.listing if listing is None else listing
    seen = survey(batches(CUT_COLUMNS))
    if not seen.items:
        return stored
    cutter = UnitCutter(seen, settings, stored.num_units)
    progress = ProgressLine(seen.items, "planned", things="items")

    def cut() -> Iterator[Cut]:
        for rows in batches(ITEM_FIELDS):
            progress(len(rows))
            if len(rows):
                yield (*cutter.cut(rows["frames"].to_numpy()), rows)

    new = write_part(cut(), listing, seen.items)
    progress.close()
    return Plan([*stored.all_parts, new], listing)


def store_plan(layout: Layout, plan: Plan) -> None:
    """Write the new part of a plan, if it has one."""
    if plan.new is not None:
        publish_copy(plan.new.path, join(layout.plan, f"plan-{plan.parts:04d}.parquet"))
