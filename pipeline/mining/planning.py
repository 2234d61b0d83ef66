"""From what the inputs hold now to items under their planned names: which are new, which moved, which changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from trackmill.pipeline.console.words import counted
from trackmill.pipeline.isolation.limits import limited
from trackmill.pipeline.mining.changes import stored_sizes, tell_changed, with_growth
from trackmill.pipeline.mining.contents import ItemContents
from trackmill.pipeline.mining.identity import Recognised, recognise
from trackmill.pipeline.mining.new_items import all_items, items_in_order, only_new
from trackmill.pipeline.mining.opening import Opened
from trackmill.pipeline.mining.places import LaterNames, as_spelt_now
from trackmill.pipeline.mining.plan import Plan, PlanError, add_rows, extend, listing_digest, read_plan
from trackmill.pipeline.mining.reading import item_limits
from trackmill.pipeline.mining.settings import source_settings
from trackmill.pipeline.sources.claiming import Claimed, claim_listing, list_inputs
from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.files import exists
from trackmill.pipeline.storage.list_files import FileInfo
from trackmill.pipeline.storage.listing import Listing
from trackmill.pipeline.storage.sorted_batches import SortedBatches
from trackmill.pipeline.storage.urls import dirname
from trackmill.schemas.media import WorkItem


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan that is ready to be stored.

    Args:
        plan: all of it.
        files: the listing.
        sizes: of the files that were planned before.
        unclaimed: files that no source understands.
        moved: see `Run`.
    """

    plan: Plan
    files: Listing
    sizes: SortedBatches | None = None
    unclaimed: Sequence[FileInfo] = ()
    moved: dict[str, WorkItem] = field(default_factory=dict)


def plan_inputs(opened: Opened, inputs: list[str], limit: int | None) -> Planned:
    """The whole plan for what the inputs hold now.

    Args:
        opened: the output, and the settings for it.
        inputs: URLs, spelt in full.
        limit: plan only the first so many items.

    Raises:
        PlanError: `limit` is less than what is planned already.
        ValueError: an input that cannot be used.
        FileNotFoundError: an input that does not exist.
    """
    layout, config = opened.layout, opened.config
    stored = read_plan(layout) if opened.begun else None
    files = list_inputs(inputs, config.source, layout.root)
    digest = listing_digest(files, config.source, limit)
    if stored and digest in stored.listings:
        return Planned(stored, files)
    claimed = claim_inputs(files, opened, inputs, stored)
    items = items_in_order(claimed.items, limit)
    if stored and limit and limit < stored.num_items:
        raise PlanError(
            f"--limit {limit} is less than the {counted(stored.num_items, 'item')} already planned in "
            f"{redact(layout.root)}; raise the limit or use another --output"
        )
    sizes = stored_sizes(layout if stored else None)
    tell_changed(files, sizes)
    new = only_new(items, stored, files, inputs, opened.inputs)
    if new is not None:
        plan = add_rows(stored, new.batches, config.shards, digest)
        return Planned(plan, files, sizes, claimed.left)
    recognised = _recognise(all_items(items), stored, files, inputs, opened)
    plan = extend(stored, with_growth(recognised.items, stored), config.shards, digest)
    return Planned(plan, files, sizes, claimed.left, _gone(recognised.elsewhere, stored))


def look_at_anew(
    items: SortedBatches,
    plan: Plan,
    files: Listing,
    inputs: list[str],
    opened: Opened,
    quarantined: Mapping[str, WorkItem],
) -> list[WorkItem]:
    """Items of a listing under their planned names: at least the quarantined ones, and those of the same files.

    Args:
        items: that the sources claimed of the listing.
        plan: all of it.
        files: the listing.
        inputs: URLs that were listed.
        opened: the output, and the settings for it.
        quarantined: items as they are planned, by source id.
    """
    rows = items_in_order(items, None)
    if only_new(rows, plan, files, inputs, opened.inputs) is None:
        return _recognise(all_items(rows), plan, files, inputs, opened).items
    names = pa.array(sorted(quarantined), pa.string())
    uris = pa.array(sorted({item.uri for item in quarantined.values()}), pa.string())
    wanted = (pc.or_(pc.is_in(batch["source_id"], names), pc.is_in(batch["uri"], uris)) for batch in rows.batches())
    return all_items(rows.where(list(wanted)))


def _recognise(
    items: list[WorkItem], plan: Plan | None, files: Listing, inputs: list[str], opened: Opened
) -> Recognised:
    sizes = {file.uri: file.size for file in files}
    return recognise(items, plan, inputs, opened.inputs, sizes, ItemContents(opened.config, opened.layout))


def _gone(elsewhere: dict[str, WorkItem], plan: Plan | None) -> dict[str, WorkItem]:
    """Of the items that were found at another place than planned, those that are not at the planned one any more."""
    if plan is None or not elsewhere:
        return {}
    planned = {item.source_id: item.uri for item in plan.find(elsewhere)}
    there: dict[str, bool] = {}
    for uri in planned.values():
        if (folder := dirname(uri)) not in there:
            there[folder] = exists(uri)
    return {name: item for name, item in elsewhere.items() if not there[dirname(planned[name])]}


def claim_inputs(files: Listing, opened: Opened, inputs: list[str], stored: Plan | None) -> Claimed:
    """What the sources make of a listing.

    Args:
        files: the listing.
        opened: the output, and the settings for it.
        inputs: URLs that were listed.
        stored: the plan that is there; pictures that it has stay pictures.
    """
    config = opened.config

    def pictures() -> frozenset[str]:
        return as_spelt_now(stored.pictures(), opened.inputs, inputs, files) if stored else frozenset()

    with limited(item_limits(config.run)):
        return claim_listing(files, config.source, config.read, source_settings(config), LaterNames(pictures))
