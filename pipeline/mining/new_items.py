"""What of a listing is new, for plans of millions of items: columns where nothing has to be told apart.

`trackmill.pipeline.mining.identity` and `.changes` compare items as objects: paths through links, other spellings,
copies below another root, videos that grew. Whether any of that can be the case at all is seen from columns here, at a
few bytes an item; where it can, they are asked.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from trackmill.pipeline.mining.places import root_of_input
from trackmill.pipeline.mining.plan import Plan
from trackmill.pipeline.sources.item_columns import ITEM_SCHEMA, items_of
from trackmill.pipeline.storage.listing import Listing
from trackmill.pipeline.storage.sorted_batches import SortedBatches, Sorter, which_are_in
from trackmill.pipeline.storage.urls import is_local
from trackmill.schemas.media import WorkItem

_CLIP = r"#c[0-9]{3,}$"
_OTHER_SPELLING = r"://.*[?]|^(?i:s3a|s3n|gcs)://"
_MOST_ROOTS = 16
_ID = pa.schema([("source_id", pa.string())])


class ItemRows:
    """Items as rows of `ITEM_SCHEMA`, as often as they are wanted.

    Args:
        make: gives some columns of all rows, a lot at a time.
    """

    def __init__(self, make: Callable[[list[str]], Iterator[pa.RecordBatch]]) -> None:
        self._make = make

    def batches(self, columns: Sequence[str] = ITEM_SCHEMA.names) -> Iterator[pa.RecordBatch]:
        """Some columns of all rows."""
        return self._make(list(columns))

    def first(self, count: int | None) -> ItemRows:
        """The first so many of them; None: all."""
        return self if count is None else ItemRows(lambda columns: _first(self.batches(columns), count))

    def where(self, masks: Sequence[pa.Array]) -> ItemRows:
        """Some of them, by a mask of each lot."""
        return ItemRows(
            lambda columns: (rows.filter(mask) for rows, mask in zip(self.batches(columns), masks, strict=True))
        )


def items_in_order(items: SortedBatches, limit: int | None) -> ItemRows:
    """The items that sources named, or the first so many of them."""
    return ItemRows(items.batches).first(limit)


def all_items(items: ItemRows) -> list[WorkItem]:
    """The items as objects."""
    return [item for rows in items.batches() for item in items_of(rows)]


def only_new(
    items: ItemRows, plan: Plan | None, listing: Listing, roots: Sequence[str], planned_roots: Sequence[str]
) -> ItemRows | None:
    """Those items that are not planned yet, in the order in which they are planned.

    Args:
        items: of the listing, sorted by `source_id`.
        plan: what is planned.
        listing: what the items were found in.
        roots, planned_roots: see `trackmill.pipeline.mining.identity.recognise`.

    Returns:
        None where some may be planned under another name, be listed twice, or have changed: objects tell then.
    """
    if any(_matches(rows["source_id"], _CLIP) for rows in items.batches(["source_id"])):
        return None
    masks = _new_masks(items, plan)
    if not any(mask.true_count for mask in masks):
        return ItemRows(lambda columns: iter(()))
    new = items.where(masks)
    lots = _Lots(new, plan)
    urls = [*planned_roots, *roots]
    files = lots.files_among(urls, listing)
    ordered = list(dict.fromkeys(root_of_input(url, files) for url in urls))
    if len(ordered) > _MOST_ROOTS or lots.any_spelt_otherwise():
        return None
    looked_at = listing.has_links or not set(planned_roots) <= set(roots)
    if lots.may_be_linked(look_at_files=looked_at):
        return None
    if len(ordered) == 1:
        return new
    if lots.share_places(ordered):
        return None
    ranks = [_Ranked(ordered, rank) for rank in range(-1, len(ordered))]
    return ItemRows(lambda columns: (rows for rank in ranks for rows in rank.of(new, columns)))


def _new_masks(items: ItemRows, plan: Plan | None) -> list[pa.Array]:
    if plan is None or not plan.num_items:
        return [pa.repeat(True, len(rows)) for rows in items.batches(["source_id"])]
    planned = Sorter(_ID, "source_id")
    for table in plan.batches(["source_id"]):
        for batch in table.combine_chunks().to_batches():
            planned.add(batch)
    known = planned.finish().batches()
    return [pc.invert(mask) for mask in which_are_in(items.batches(["source_id"]), "source_id", known)]


class _Lots:
    """New and planned items, gone through once for each question."""

    def __init__(self, new: ItemRows, plan: Plan | None) -> None:
        self._new, self._plan = new, plan

    def _batches(self, columns: list[str]) -> Iterator[pa.RecordBatch | pa.Table]:
        yield from self._plan.batches(columns) if self._plan else ()
        yield from self._new.batches(columns)

    def files_among(self, urls: Sequence[str], listing: Listing) -> set[str]:
        """Those of some URLs that are files, or items'."""
        wanted = pa.array(sorted(set(urls)))
        found = set(listing.among(urls))
        for rows in self._batches(["uri"]):
            found.update(wanted.filter(pc.is_in(wanted, _whole(rows["uri"]))).to_pylist())
        return found

    def any_spelt_otherwise(self) -> bool:
        """Whether a URL may be another one's in other words."""
        return any(_matches(rows["source_id"], _OTHER_SPELLING) for rows in self._batches(["source_id"]))

    def may_be_linked(self, look_at_files: bool) -> bool:
        """Whether two items may be one file of this machine, as links or through links.

        Args:
            look_at_files: whether files may be links; else only folders can.
        """
        real: dict[str, str] = {}
        folders: dict[str, str] = {}
        for rows in self._batches(["uri"]):
            uris = _whole(rows["uri"])
            if not len(uris) or not is_local(uris[0].as_py()):
                uris = uris.filter(pc.match_substring_regex(uris, r"^(/|(?i:file|local):)"))
            if _matches(uris, r"\\x"):
                return True
            for folder in pc.unique(pc.replace_substring_regex(uris, r"(?s)/[^/]*$", "")).to_pylist():
                if folder not in folders:
                    folders[folder] = os.path.realpath(folder or "/")
                    if real.setdefault(folders[folder], folder) != folder:
                        return True
            if look_at_files and any(os.path.islink(uri) for uri in uris.to_pylist()):
                return True
        return False

    def share_places(self, roots: list[str]) -> bool:
        """Whether two items have the same place below two roots."""
        hashes = [_place_hashes(rows, roots) for rows in self._batches(["source", "source_id", "uri"])]
        every = np.sort(np.concatenate(hashes)) if hashes else np.empty(0, np.int64)
        return bool((every[1:] == every[:-1]).any())


class _Ranked:
    """The rows below one of several roots, of which the innermost counts."""

    def __init__(self, roots: Sequence[str], rank: int) -> None:
        self._roots, self._rank = roots, rank

    def of(self, rows: ItemRows, columns: list[str]) -> Iterator[pa.RecordBatch]:
        for batch in rows.batches(list(dict.fromkeys([*columns, "uri"]))):
            mask = pa.array(_ranks(_whole(batch["uri"]), self._roots) == self._rank)
            if mask.true_count:
                yield batch.filter(mask).select(columns)


def _ranks(uris: pa.Array, roots: Sequence[str]) -> NDArray[np.int64]:
    """Which root each file lies below, the innermost; -1: none."""
    ranks = np.full(len(uris), -1, np.int64)
    for root in sorted(roots, key=len):
        below = pc.or_(pc.starts_with(uris, f"{root}/"), pc.equal(uris, root))
        ranks[below.to_numpy(zero_copy_only=False)] = roots.index(root)
    return ranks


def _place_hashes(rows: pa.RecordBatch | pa.Table, roots: Sequence[str]) -> NDArray[np.int64]:
    lengths = np.array([*map(len, roots), 0])[_ranks(_whole(rows["uri"]), roots)].tolist()
    places = zip(rows["source"].to_pylist(), rows["source_id"].to_pylist(), lengths)
    return np.array([hash((source, name[length:])) for source, name, length in places], np.int64)


def _whole(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _matches(texts: pa.Array | pa.ChunkedArray, pattern: str) -> bool:
    return bool(pc.any(pc.match_substring_regex(texts, pattern)).as_py())


def _first(batches: Iterable[pa.RecordBatch], count: int) -> Iterator[pa.RecordBatch]:
    for rows in batches:
        if count <= 0:
            return
        yield rows.slice(0, count)
        count -= len(rows)
