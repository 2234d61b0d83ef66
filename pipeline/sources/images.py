"""Source `images`: picture files without annotations, one item for each."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from trackmill.pipeline.media.fetching import fetch_bytes
from trackmill.pipeline.media.pictures import decode_picture
from trackmill.pipeline.sources.base import Claim, ReadSettings, Source
from trackmill.pipeline.storage.list_files import FileInfo
from trackmill.pipeline.storage.urls import basename
from trackmill.schemas.keys import sample_key
from trackmill.schemas.media import Frame, Media, WorkItem

if TYPE_CHECKING:
    import pyarrow as pa

    from trackmill.pipeline.sources.item_columns import ItemSorter
    from trackmill.pipeline.storage.listing import Listing

SUFFIXES = (
    ".jpg",
    ".jpeg",
    ".jfif",
    ".png",
    ".webp",
    ".bmp",
    ".dib",
    ".tif",
    ".tiff",
    ".gif",
    ".ppm",
    ".pgm",
    ".pbm",
    ".jp2",
    ".avif",
    ".heic",
    ".heif",
    ".hif",
)
"""What is taken for a picture, by the end of its name in lower case."""


_PICTURE = rf"(?i)({'|'.join(SUFFIXES).replace('.', '[.]')})$"


class Images(Source):
    """Pictures in folders, matching a glob, or named one by one."""

    name = "images"
    version = 1
    annotated = False
    looked_for = f"files ending in {' '.join(SUFFIXES)}"
    suffixes = SUFFIXES

    def claim(self, files: Sequence[FileInfo]) -> Claim:
        """Every file with the suffix of a picture."""
        uris = [file.uri for file in files if file.uri.lower().endswith(SUFFIXES)]
        return Claim(items=[self._item(uri) for uri in uris], used=set(uris))

    def claim_columns(self, listing: Listing, items: ItemSorter) -> Listing:
        """As `claim`."""
        # Here, because `track --help` asks for nothing but the suffixes, and pyarrow takes a third of a second.
        import pyarrow.compute as pc

        from trackmill.pipeline.sources.item_columns import file_rows

        taken = False
        for batch in listing.batches():
            uris = batch["uri"].filter(_are_pictures(batch))
            if len(uris):
                taken = True
                names = [uri.rsplit("/", 1)[-1].rsplit(".", 1)[0] for uri in uris.to_pylist()]
                items.add_rows(file_rows(self.name, uris, uris, names))
        return listing.where(lambda batch: pc.invert(_are_pictures(batch))) if taken else listing

    def read(self, item: WorkItem) -> Media:
        """Decode a picture; of an animation, its first frame."""
        data = fetch_bytes(item.uri, max_bytes=self.settings.max_item_bytes)
        return picture_media(data, item.uri, self.settings)

    def _item(self, uri: str) -> WorkItem:
        name = basename(uri).rsplit(".", 1)[0]
        return WorkItem(source=self.name, source_id=uri, key=sample_key(self.name, name, uri), uri=uri)


def _are_pictures(batch: pa.RecordBatch) -> pa.Array:
    import pyarrow.compute as pc

    return pc.match_substring_regex(batch["uri"], _PICTURE)


def picture_media(data: bytes, name: str, settings: ReadSettings) -> Media:
    """What is read for a picture without annotations.

    Args:
        data: the file.
        name: what the errors should name.
        settings: how to read.

    Raises:
        BadItem: (or a subclass) it is broken, or larger than the settings allow.
    """
    picture = decode_picture(data, name, max_pixels=settings.max_pixels, longest_side=settings.longest_side)
    return Media(
        kind="image",
        frames=[Frame(image=picture.image, encoded=picture.encoded)],
        original_height=picture.height,
        original_width=picture.width,
        sha256=hashlib.sha256(data).hexdigest(),
        num_bytes=len(data),
        annotated=False,
        license=settings.license or "unknown",
        conversions=picture.conversions,
    )
