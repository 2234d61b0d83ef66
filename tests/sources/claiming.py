"""Listing and claiming in one go, as most tests of sources want it."""

from __future__ import annotations

from collections.abc import Sequence

from trackmill.pipeline.sources.base import ReadSettings
from trackmill.pipeline.sources.claiming import claim_files, list_inputs
from trackmill.pipeline.storage.list_files import FileInfo
from trackmill.schemas.media import WorkItem


def claim_all(
    urls: Sequence[str], source_name: str, settings: ReadSettings
) -> tuple[list[WorkItem], list[FileInfo], list[str]]:
    """The items, the listing, and the URIs that no source took."""
    listing = list_inputs(urls)
    items, unclaimed = claim_files(listing, source_name, settings)
    return items, listing, unclaimed
