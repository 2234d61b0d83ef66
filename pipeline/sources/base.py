"""The contract of a source: name its items without reading pixels, then read one.

A source sees one listing of files and claims those it understands. Everything it needs later to read an item goes
into the item, so that any worker on any machine can read it without having seen the plan.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson
from pydantic import Field

from trackmill.pipeline.media.limits import MAX_FRAMES, MAX_PIXELS
from trackmill.pipeline.storage.list_files import FileInfo
from trackmill.schemas.config import Settings
from trackmill.schemas.keys import sample_key
from trackmill.schemas.media import Media, WorkItem

if TYPE_CHECKING:
    # Both need pyarrow, which `mine --help` can do without.
    from trackmill.pipeline.sources.item_columns import ItemSorter
    from trackmill.pipeline.storage.listing import Listing


class ReadSettings(Settings):
    """How pictures and videos are read and stored. All of it changes the output."""

    longest_side: int = Field(
        1024, ge=16, le=16384, description="Stored frames are scaled down to this longest side, never up."
    )
    jpeg_quality: int = Field(92, ge=1, le=100, description="Of frames that are encoded anew.")
    max_pixels: int = Field(
        MAX_PIXELS, gt=0, description="A frame that declares more is quarantined before it is decoded."
    )
    max_frames: int = Field(
        MAX_FRAMES,
        gt=0,
        description="A video with more frames is quarantined: what is known of each takes some 400 bytes of memory.",
    )
    max_item_bytes: int = Field(4 << 30, gt=0, description="A file larger than this is quarantined, not downloaded.")
    frames_per_clip: int = Field(
        32, ge=1, le=1000, description="Longest clip; a video is cut into clips of nearly equal length."
    )
    label_fps: float = Field(
        6.0, gt=0, description="Frames a second that are kept of a video without labels; SA-V's label rate."
    )
    amodal: bool = Field(
        False,
        description="Keep boxes of objects as annotated where they leave the picture (MOT17, CrowdHuman), instead of "
        "cutting them at its border.",
    )
    license: str = Field(
        "", description="Licence of the input, written into every record; empty: what the source knows."
    )


@dataclass(slots=True)
class Claim:
    """The part of a listing that a source understands.

    Args:
        items: what it can read, in no particular order.
        used: every file that belongs to those items (pixels and annotations), so that no other source takes it.
    """

    items: list[WorkItem] = field(default_factory=list)
    used: set[str] = field(default_factory=set)


class Source(ABC):
    """Reads one kind of data set.

    Items are read by an instance in a child process of each worker, which may keep its last file open; what it keeps is
    lost where a call is ended because of `run.item_memory_bytes` or `run.item_timeout_s`.
    """

    name: str
    """What its items are called by: the beginning of their keys, and what stands in every record."""

    version: int
    """Raised whenever the same files may give other items or other annotations. Of a source from outside it is part of
    the fingerprint."""

    annotated: bool
    """Whether its items come with annotations, so that the proposer `annotations` can use them."""

    looked_for: str = ""
    """The files that it understands, in a few words, for when there are none."""

    suffixes: tuple[str, ...] = ()
    """How names of single files end, in lower case, that may be given as an input and are then read or quarantined."""

    Config: type[Settings] = Settings
    """Settings of its own, section `[source_settings]`."""

    needs: str = ""
    """A regular expression (RE2's). Where no URI of a listing matches it, `auto` does not ask this source, as it would
    take nothing. Empty: it is always asked."""

    by_name_only: bool = False
    """Whether `auto` never asks it, because what it reads is mostly meant otherwise."""

    explicit: bool = False
    """Whether `--source` names this source; it may then claim files that only might be its own."""

    planned: Set[str] = frozenset()
    """Pictures that the data set already holds one by one: they are no frames of a video there."""

    config: Settings
    """Its own settings, a `Config`; there before `claim` and `read` are called."""

    def __init__(self, settings: ReadSettings) -> None:
        self.settings = settings

    @abstractmethod
    def claim(self, files: Sequence[FileInfo]) -> Claim:
        """Name the items in a listing, deterministically, reading file headers at most.

        A file that looks right but cannot be probed is still named: reading it later quarantines it.
        """

    def claim_columns(self, listing: Listing, items: ItemSorter) -> Listing | None:
        """The same as `claim` for listings of millions of files, where no object may be made of each; may be left out.

        For sources that tell their items from names alone. The items are exactly those that `claim` gives.

        Args:
            listing: as in `claim`.
            items: takes the items, in any order.

        Returns:
            The files that are left to other sources; None where `claim` has to be asked, and nothing was added.
        """
        return None

    @abstractmethod
    def read(self, item: WorkItem) -> Media:
        """Decode one item: frames at their stored size, annotations in pixels of those frames.

        Annotations that a file states in pixels of the original are scaled here, together with the frame, by
        `trackmill.pipeline.media.scaling.annotations_of_frame`: a `Media` has one system of coordinates. Boxes lie
        inside their frame, unless `settings.amodal` is set and the source knows objects that leave it; then it sets
        `Media.amodal`.

        Raises:
            BadItem: (or a subclass) the data is broken.
            NothingToStore: there is nothing in it.
            OSError: it could not be fetched.
        """

    def ranges(self, item: WorkItem) -> list[tuple[str, int, int]]:
        """Byte ranges (file, offset, length) that `read` is going to fetch, so that neighbours come by one request.

        They may be left out, and may be wrong: what `read` fetches then comes by itself.
        """
        return [(item.uri, item.offset, item.length)] if item.offset >= 0 else []


def file_item(
    source: str,
    uri: str,
    source_id: str,
    name: str,
    details: Mapping[str, Any],
    offset: int = -1,
    length: int = -1,
) -> WorkItem:
    """The work item of a picture that is a file, or a byte range of one; people call it `name`."""
    return WorkItem(
        source=source,
        source_id=source_id,
        key=sample_key(source, name, source_id),
        uri=uri,
        offset=offset,
        length=length,
        details=orjson.dumps(details, option=orjson.OPT_SORT_KEYS).decode(),
    )
