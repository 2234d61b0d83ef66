"""What a manifest was made from: while the receipts are the very same ones, it is left as it is.

To lay the receipts of SA-1B end to end takes 22,000 requests to a store; to see that nothing has changed since takes a
listing. So `manifest/made-from.json` holds a digest of that listing (name, length and version of each receipt), the
digests of both tables of the manifest, and what the receipts amount to. A receipt that is added, removed or replaced
changes the listing, so the note does not hold any more. It holds times and inodes of this machine, so it is no part of
the tables: these have the same bytes wherever they are made.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from trackmill.pipeline.shards.layout import Layout
from trackmill.pipeline.shards.receipts import ROW_SCHEMA, SHARD_SCHEMA, is_receipt, typed_rows
from trackmill.pipeline.shards.totals import COUNTERS, Totals
from trackmill.pipeline.storage.documents import publish_document, read_document
from trackmill.pipeline.storage.file_times import list_times
from trackmill.pipeline.storage.files import read_bytes
from trackmill.pipeline.storage.parquet.checksum import check_stored_checksum, stored_digest
from trackmill.pipeline.storage.parquet.reading import MAX_TABLE_FILE_BYTES, ParquetData
from trackmill.pipeline.storage.pipes import open_local
from trackmill.pipeline.storage.urls import basename, dirname, filesystem, is_local
from trackmill.schemas.errors import InputError
from trackmill.schemas.receipt import ReceiptRow, ShardInfo

_FORMAT = 1
_NUMBERS = ("units", "items", "shards", "num_bytes", "longest_clip")


@dataclass(frozen=True, slots=True)
class CurrentManifest:
    """A manifest that was made from the receipts that are there.

    Args:
        totals: what they amount to.
        shards: that they list.
    """

    totals: Totals
    shards: list[ShardInfo]


def receipts_digest(layout: Layout) -> str:
    """Of the listing of receipts: another one as soon as one of them is added, removed or replaced.

    Returns:
        "" where the store says of a receipt nothing that surely changes with it.

    Raises:
        OSError: they could not be listed.
    """
    files = sorted(
        (file.name, file.size, file.version) for file in list_times(layout.receipts) if is_receipt(file.name)
    )
    if not all(version for _, _, version in files):
        return ""
    listing = hashlib.sha256()
    for name, size, version in files:
        listing.update(f"{name} {size} {version}\n".encode())
    return f"{len(files)}-{listing.hexdigest()}"


def note_source(layout: Layout, receipts: str, items: str, shards: bytes, totals: Totals) -> None:
    """Write down what a manifest that was just written is made from.

    Args:
        layout: of the data set.
        receipts: `receipts_digest` as it was before the first receipt was read, so that one that was replaced meanwhile
            does not pass for the one that was read; "": nothing is written.
        items: digest of the table of items, see `trackmill.pipeline.storage.parquet.checksum.add_checksum`.
        shards: the table of shards.
        totals: of the receipts.

    Raises:
        OSError: could not be written.
    """
    if not receipts:
        return
    values = {
        "format": _FORMAT,
        "receipts": receipts,
        "items": items,
        "shards": hashlib.sha256(shards).hexdigest(),
        "totals": _written(totals),
    }
    try:
        publish_document(layout.manifest_source, values)
    except TypeError:
        return  # sums beyond 64 bits, of receipts that lie: JSON has no such numbers


def current_manifest(layout: Layout) -> CurrentManifest | None:
    """The manifest, if it was made from exactly the receipts that are there; None: it has to be written.

    No receipt is read. On this machine the table of items is checked whole, in a store by the digest at its end.

    Raises:
        OSError: storage failed for good.
    """
    try:
        note = read_document(layout.manifest_source)
        if note["format"] != _FORMAT or note["receipts"] != receipts_digest(layout):
            return None
        shards = read_bytes(layout.manifest_shards, max_bytes=MAX_TABLE_FILE_BYTES)
        if hashlib.sha256(shards).hexdigest() != note["shards"] or _items_digest(layout) != note["items"]:
            return None
        listed = [ShardInfo(**row) for row in typed_rows(ParquetData(shards), SHARD_SCHEMA)]
        return CurrentManifest(_read_back(note["totals"]), listed)
    except FileNotFoundError:
        return None
    except (AttributeError, InputError, KeyError, OverflowError, TypeError, ValueError, pa.ArrowException):
        return None  # damaged, or of another version


def _items_digest(layout: Layout) -> str:
    url = layout.manifest
    size = next((file.size for file in list_times(dirname(url)) if file.name == basename(url)), 0)
    digest = stored_digest(lambda offset, length: read_bytes(url, offset, length), size)
    if digest and is_local(url):
        with open_local(filesystem(url)[1]) as handle:
            check_stored_checksum(handle, size)
    return digest


def _written(totals: Totals) -> dict[str, Any]:
    values: dict[str, Any] = {name: getattr(totals, name) for name in (*_NUMBERS, "fingerprint")}
    values |= {name: dict(getattr(totals, name)) for name in COUNTERS}
    return values | {"examples": [dataclasses.asdict(row) for row in totals.examples]}


def _read_back(values: Mapping[str, Any]) -> Totals:
    """Raises AttributeError, KeyError, OverflowError, TypeError, ValueError or ArrowException for anything else."""
    examples = pa.Table.from_pylist(values["examples"], schema=ROW_SCHEMA)
    if any(column.null_count for column in examples.columns):
        raise ValueError("an example has empty cells")
    found: dict[str, Any] = {name: _number(values[name]) for name in _NUMBERS}
    found |= {name: Counter({key: _number(n) for key, n in values[name].items()}) for name in COUNTERS}
    rows = [ReceiptRow(**row) for row in examples.to_pylist()]
    return Totals(**found, examples=rows, fingerprint=str(values["fingerprint"]))


def _number(value: object) -> int:
    if type(value) is not int:
        raise TypeError(f"{str(value)[:40]!r} should be a whole number")
    return value
