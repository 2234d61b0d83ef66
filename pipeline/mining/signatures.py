"""Queries of signed URLs among the inputs: they stay in the plan until their items are done.

`trackmill.pipeline.storage.secrets.signed_urls` explains why they are stored nowhere else.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator, Mapping

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.feather as feather

from trackmill.pipeline.console.words import counted
from trackmill.pipeline.mining.plan import Plan
from trackmill.pipeline.shards.layout import Layout
from trackmill.pipeline.shards.receipt_stream import stream_receipts
from trackmill.pipeline.shards.receipts import ROW_SCHEMA, listed_receipts
from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.files import exists, read_bytes
from trackmill.pipeline.storage.publish import publish_bytes, remove
from trackmill.pipeline.storage.secrets.signed_urls import adopt_signatures, any_signed, signatures_in
from trackmill.pipeline.storage.urls import is_local
from trackmill.schemas.media import WorkItem

log = logging.getLogger("trackmill")

_SCHEMA = pa.schema([("uri", pa.string()), ("query", pa.string())])
_MOST_BYTES = 4 << 30


def recall_signatures(layout: Layout) -> None:
    """Take over what the plan keeps; a URL that is given anew has its new query already."""
    if not exists(layout.signatures):
        return
    try:
        table = feather.read_table(io.BytesIO(read_bytes(layout.signatures, max_bytes=_MOST_BYTES)))
        adopt_signatures(dict(zip(table["uri"].to_pylist(), table["query"].to_pylist(), strict=True)), over=False)
    except (pa.ArrowException, KeyError, ValueError):
        log.warning("%s: cannot be read; give the signed URLs again", redact(layout.signatures))


def keep_signatures(layout: Layout, plan: Plan, elsewhere: Mapping[str, WorkItem]) -> None:
    """Write down the queries of what is still to be read, or to be retried; without any, the file goes.

    Args:
        layout: of the data set.
        plan: all of it.
        elsewhere: items that are read at another place than planned.
    """
    there = exists(layout.signatures)
    kept: dict[str, str] = {}
    for items in _pending(layout, plan) if any_signed() else ():
        kept |= signatures_in([elsewhere.get(item.source_id, item) for item in items])
    if not kept:
        if there:
            remove(layout.signatures)
        return
    table = pa.table({"uri": sorted(kept), "query": [kept[uri] for uri in sorted(kept)]}, schema=_SCHEMA)
    buffer = io.BytesIO()
    feather.write_feather(table, buffer, compression="zstd")
    publish_bytes(layout.signatures, buffer.getvalue(), private=True)
    if not there:
        readable = "which only you can read" if is_local(layout.root) else "and who can read it can read the inputs"
        log.info(
            "%s kept in %s, %s, until the items are done",
            counted(len(kept), "signature of the inputs' URLs is", "signatures of the inputs' URLs are"),
            redact(layout.signatures),
            readable,
        )


def _pending(layout: Layout, plan: Plan) -> Iterator[list[WorkItem]]:
    done = listed_receipts(layout)
    for unit in range(plan.num_units):
        if unit not in done:
            yield plan.unit(unit)
    for unit, positions in quarantined_positions(layout, done):
        items = plan.unit(unit)
        yield [items[position] for position in positions]


def quarantined_positions(layout: Layout, units: Mapping[int, int]) -> Iterator[tuple[int, list[int]]]:
    """Of each unit that has quarantined items, its number and their positions.

    Args:
        layout: of the data set.
        units: see `trackmill.pipeline.shards.receipts.listed_receipts`.
    """
    schema = pa.schema([ROW_SCHEMA.field(name) for name in ("position", "status")])
    for receipt in stream_receipts(layout, units, schema) if units else ():
        bad = receipt.table.filter(pc.equal(receipt.table["status"], "quarantined"))
        if len(bad):
            yield receipt.unit, bad["position"].to_pylist()
