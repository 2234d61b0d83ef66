"""The plan: every item, in numbered units, written once so that each later run continues the same work.

A second run with the same inputs does not even look into them again. New files extend the plan with further units; the
units that are there keep their numbers, because receipts and shards are named after them.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from trackmill.pipeline.mining.settings import ShardSettings
from trackmill.pipeline.shards.layout import Layout
from trackmill.pipeline.shards.receipts import to_parquet, typed_table
from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.files import FileInfo, join, list_files, read_bytes
from trackmill.pipeline.storage.parquet.reading import MAX_TABLE_FILE_BYTES, ParquetData
from trackmill.pipeline.storage.publish import publish_bytes
from trackmill.schemas.errors import InputError
from trackmill.schemas.media import WorkItem

_ARROW = {"str": pa.string(), "int": pa.int64()}
_FIELDS = [field.name for field in dataclasses.fields(WorkItem)]
SCHEMA = pa.schema(
    [("unit", pa.int64()), ("position", pa.int64())]
    + [(field.name, _ARROW[str(field.type)]) for field in dataclasses.fields(WorkItem)]
)
_UNITS_WANTED = 64
_UNIT_FRAMES_LIMITS = (8, 512)


class PlanError(InputError):
    """The stored plan cannot be continued as asked; the text says why and what to do."""


class Plan:
    """All units of a data set.

    Args:
        table: one row per item with the columns of `SCHEMA`, ordered by unit and position.
        listing: digest of the input listing that the newest part of the plan was made from.
        parts: number of plan files.
    """

    def __init__(self, table: pa.Table, listing: str = "", parts: int = 0) -> None:
        self.table = table
        self.listing = listing
        self.parts = parts
        # Taken out of the table once: eleven million rows are asked for by unit many thousand times.
        self._unit = table["unit"].to_numpy()
        self._frames = table["frames"].to_numpy()

    @property
    def num_items(self) -> int:
        """Number of items."""
        return len(self._unit)

    @property
    def num_frames(self) -> int:
        """Number of frames over all items."""
        return int(self._frames.sum())

    @property
    def num_units(self) -> int:
        """Number of units; they are numbered from 0 without gaps."""
        return int(self._unit[-1]) + 1 if len(self._unit) else 0

    def frames_in(self, units: Iterable[int]) -> int:
        """Number of frames over some units."""
        return int(self._frames[np.isin(self._unit, list(units))].sum())

    def unit(self, number: int) -> list[WorkItem]:
        """The items of a unit, in order."""
        start, stop = np.searchsorted(self._unit, [number, number + 1])
        return self.items(int(start), int(stop))

    def items(self, start: int, stop: int) -> list[WorkItem]:
        """Items by their place in the whole plan."""
        rows = self.table.slice(start, stop - start).select(_FIELDS).to_pylist()
        return [WorkItem(**row) for row in rows]

    def sources(self) -> list[str]:
        """Names of the sources that occur."""
        return sorted(pc.unique(self.table["source"]).to_pylist())

    def pictures(self) -> frozenset[str]:
        """URIs of the pictures that are planned one by one."""
        single = self.table.filter(pc.equal(self.table["source"], "images"))
        return frozenset(single["uri"].to_pylist())

    def source_ids(self) -> set[str]:
        """Identities of all planned items."""
        return set(self.table["source_id"].to_pylist())


def listing_digest(files: Sequence[FileInfo], source: str, limit: int | None) -> str:
    """Digest of what a plan is made from: names and sizes of all input files, the source asked for, and the limit."""
    digest = hashlib.sha256(f"{source}\0{limit}".encode())
    for file in files:
        digest.update(f"{file.uri}\0{file.size}\n".encode())
    return digest.hexdigest()


def frames_per_unit(total_frames: int, settings: ShardSettings) -> int:
    """How many frames a unit should hold: as set, or by the size of the corpus.

    The number of workers has no say in it, or another cluster would cut other shards.
    """
    if settings.unit_frames:
        return settings.unit_frames
    low, high = _UNIT_FRAMES_LIMITS
    return int(np.clip(-(-total_frames // _UNITS_WANTED), low, high))


def cut_units(items: Sequence[WorkItem], settings: ShardSettings) -> list[list[WorkItem]]:
    """Group items, in the order given, into units of about `frames_per_unit` frames."""
    target = frames_per_unit(sum(item.frames for item in items), settings)
    units: list[list[WorkItem]] = []
    frames = 0
    for item in items:
        if not units or (frames + item.frames > target and units[-1]):
            units.append([])
            frames = 0
        units[-1].append(item)
        frames += item.frames
    return units


def read_plan(layout: Layout) -> Plan | None:
    """The stored plan, or None if there is none yet.

    Raises:
        PlanError: a plan file is damaged.
    """
    try:
        files = [file.uri for file in list_files(layout.plan) if file.uri.endswith(".parquet")]
    except FileNotFoundError:
        return None
    tables, listing = [], ""
    for uri in files:
        try:
            data = ParquetData(read_bytes(uri, max_bytes=MAX_TABLE_FILE_BYTES))
            tables.append(typed_table(data, SCHEMA))
            listing = data.metadata.get(b"trackmill.listing", b"").decode()
        except ValueError as error:
            raise PlanError(
                f"{redact(uri)}: not a readable plan ({error}); restore it or use another --output"
            ) from None
    return Plan(pa.concat_tables(tables), listing, len(tables)) if tables else None


def extend(stored: Plan | None, items: Iterable[WorkItem], settings: ShardSettings) -> tuple[Plan, pa.Table]:
    """Add the items that are not planned yet as further units.

    Returns:
        The whole plan, and the rows that are new in it.
    """
    stored = stored or Plan(SCHEMA.empty_table())
    known = stored.source_ids()
    units = cut_units([item for item in items if item.source_id not in known], settings)
    rows = [
        {"unit": stored.num_units + number, "position": position, **dataclasses.asdict(item)}
        for number, unit in enumerate(units)
        for position, item in enumerate(unit)
    ]
    new = pa.Table.from_pylist(rows, schema=SCHEMA)
    return Plan(pa.concat_tables([stored.table, new]), stored.listing, stored.parts), new


def store_plan(layout: Layout, number: int, new: pa.Table, listing: str) -> None:
    """Write one part of the plan.

    Args:
        layout: of the data set.
        number: how many parts there are already.
        new: rows of `extend`.
        listing: see `Plan`.
    """
    stamped = new.replace_schema_metadata({b"trackmill.listing": listing.encode()})
    publish_bytes(join(layout.plan, f"plan-{number:04d}.parquet"), to_parquet(stamped))
