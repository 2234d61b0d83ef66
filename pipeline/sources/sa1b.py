"""Source `sa1b`: Segment Anything 1B, as folders or in its official tars, which are read in place.

A picture is `sa_N.jpg` beside its `sa_N.json`, in a folder or in one tar. Boxes are taken as the file states them; in
SA-1B a box ends *on* the last pixel of its mask, so it may be a pixel narrower than the mask is.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from trackmill.pipeline.media.errors import BadItem, MissingAnnotation
from trackmill.pipeline.media.fetching import fetch_bytes, fetch_json
from trackmill.pipeline.media.pictures import decode_picture
from trackmill.pipeline.media.scaling import annotations_of_frame
from trackmill.pipeline.sources.apart import pair_apart
from trackmill.pipeline.sources.base import Claim, Source, file_item
from trackmill.pipeline.sources.item_columns import ItemSorter
from trackmill.pipeline.sources.sa1b_annotations import check_picture, sa1b_annotations
from trackmill.pipeline.sources.sa1b_pairs import pair_files, pair_items
from trackmill.pipeline.sources.tar_index import SUFFIXES as TAR_SUFFIXES
from trackmill.pipeline.sources.tar_index import explain, index_tars, raise_explained
from trackmill.pipeline.sources.tar_members import TarIndex
from trackmill.pipeline.storage.list_files import FileInfo
from trackmill.pipeline.storage.listing import LISTING_SCHEMA, Listing, ListingMaker
from trackmill.pipeline.storage.ranges import Place
from trackmill.pipeline.storage.sorted_batches import Sorter, which_are_in
from trackmill.pipeline.storage.urls import basename
from trackmill.schemas.media import Frame, Media, WorkItem

LICENSE = "SA-1B research licence"

_PAIR = re.compile(r"^(?P<stem>.*)\.(?P<kind>jpe?g|json)$", re.IGNORECASE | re.ASCII)
_ADVICE = "--source webdataset takes pictures without annotations out of any tar"
_OFFICIAL_NAME = re.compile(r"(^|/)sa_\d+$")


class Sa1b(Source):
    """Pictures with the masks of the SA-1B data engine.

    By itself it takes `sa_N.jpg` and `sa_N.json`, in one folder or in `images/` and `annotations/`, where there is at
    least one such JSON, and tars called `sa_*.tar`;
    named by `--source`, every JPEG, the JSON beside one, and every tar.
    """

    name = "sa1b"
    version = 1
    annotated = True
    looked_for = "sa_N.jpg with sa_N.json, or sa_*.tar"
    needs = r"(?i)(^|/)sa_[^/]*$"
    suffixes = TAR_SUFFIXES

    def claim(self, files: Sequence[FileInfo]) -> Claim:
        """Pair the files of folders, and walk the headers of tars."""
        claim = Claim()
        self._claim_folders([file.uri for file in files], claim)
        tars = [file for file in files if self._is_tar(file.uri)]
        for uri, index in zip((tar.uri for tar in tars), index_tars(tars), strict=True):
            claim.items += list(self._tar_items(uri, index)) or [self._item(uri, uri, basename(uri), _no_pair(index))]
            claim.used.add(uri)
        return claim

    def claim_columns(self, listing: Listing, items: ItemSorter) -> Listing | None:
        """As `claim`; items of tars are objects until their tar is done."""
        if (pairs := pair_files(listing, self.explicit)) is None:
            return None
        tars = [tar for batch in listing.batches() for tar in self._tars_among(batch)]
        taken = Sorter(LISTING_SCHEMA, "uri")
        if pairs.any_json or self.explicit:
            for rows, used in pair_items(listing, pairs, self.explicit, self.name):
                items.add_rows(rows)
                taken.add(pa.RecordBatch.from_arrays([used, pa.repeat(0, len(used))], schema=LISTING_SCHEMA))
        for tar, index in zip(tars, index_tars(tars), strict=True):
            items.add(self._items_of_tar(tar.uri, index))
        gone = {tar.uri for tar in tars}
        done = taken.finish()
        masks = which_are_in(listing.batches(), "uri", done.batches(["uri"]))
        left = ListingMaker()
        for batch, mask in zip(listing.batches(), masks, strict=True):
            rest = batch.filter(pc.invert(mask))
            kept = [place for place, uri in enumerate(rest["uri"].to_pylist()) if uri not in gone]
            left.add_rows(rest.take(pa.array(kept, pa.int64())))
        return left.finish()

    def _tars_among(self, batch: pa.RecordBatch) -> list[FileInfo]:
        likely = batch.filter(pc.match_substring_regex(batch["uri"], r"(?i)[.]t[^/.]*([.][^/.]*)?$"))
        files = map(FileInfo, likely["uri"].to_pylist(), likely["size"].to_pylist())
        return [file for file in files if self._is_tar(file.uri)]

    def _items_of_tar(self, uri: str, index: TarIndex | str) -> list[WorkItem]:
        return list(self._tar_items(uri, index)) or [self._item(uri, uri, basename(uri), _no_pair(index))]

    def read(self, item: WorkItem) -> Media:
        """Decode a picture and its annotations."""
        details = orjson.loads(item.details)
        self._raise_planned_error(item, details)
        settings = self.settings
        data = fetch_bytes(item.uri, item.offset, item.length, max_bytes=settings.max_item_bytes)
        name = item.source_id
        picture = decode_picture(data, name, max_pixels=settings.max_pixels, longest_side=settings.longest_side)
        place = Place(details["json"])
        if item.offset >= 0:
            offset, length = details["json"]
            place = Place(item.uri, offset, length, _json_name(name))
        size = (picture.height, picture.width)
        document = fetch_json(place)
        check_picture(document, item.uri if item.offset < 0 else item.source_id.rpartition("#")[2], *size, name)
        stated = sa1b_annotations(document, *size, name)
        annotations = annotations_of_frame(stated, size, picture.image)
        return Media(
            kind="image",
            frames=[Frame(image=picture.image, encoded=picture.encoded, annotations=annotations)],
            original_height=picture.height,
            original_width=picture.width,
            sha256=hashlib.sha256(data).hexdigest(),
            num_bytes=len(data),
            annotated=True,
            license=settings.license or LICENSE,
            conversions=picture.conversions,
        )

    def ranges(self, item: WorkItem) -> list[tuple[str, int, int]]:
        """Those of the picture and of its annotations."""
        notes = orjson.loads(item.details).get("json")
        return super().ranges(item) + ([(item.uri, *notes)] if isinstance(notes, list) else [])

    def _raise_planned_error(self, item: WorkItem, details: dict[str, Any]) -> None:
        raise_explained(item.source_id, details)
        if details.get("picture") is False:
            raise BadItem(f"{item.source_id}: there are annotations, but the picture is missing")
        if "json" not in details:
            bare = "images" if item.offset < 0 else "webdataset"
            raise MissingAnnotation(
                f"{item.source_id}: no JSON lies beside the picture; mine it without annotations by --source {bare}"
            )

    def _is_tar(self, uri: str) -> bool:
        name = basename(uri).lower()
        return name.endswith(TAR_SUFFIXES) and (self.explicit or name.startswith("sa_"))

    def _claim_folders(self, uris: list[str], claim: Claim) -> None:
        pairs = _pair(uri for uri in uris if self.explicit or _official(uri))
        pictures = {stem: pair["jpg"] for stem, pair in pairs.items() if "json" not in pair}
        for notes, stem in pair_apart(pictures, [stem for stem, pair in pairs.items() if "jpg" not in pair]).items():
            pairs[stem] |= pairs.pop(notes)
        if not self.explicit and not any("json" in pair for pair in pairs.values()):
            return
        for stem, pair in pairs.items():
            if self.explicit and "jpg" not in pair and not _OFFICIAL_NAME.search(stem):
                continue  # some other JSON file
            claim.used.update(pair.values())
            # Named after its picture even where that is missing, so that it is the same item once it is there.
            uri = pair.get("jpg", f"{stem}.jpg")
            details: dict[str, Any] = {"json": pair["json"]} if "json" in pair else {}
            if "jpg" not in pair:
                details["picture"] = False
            claim.items.append(self._item(uri, uri, basename(stem), details))

    def _tar_items(self, uri: str, index: TarIndex | str) -> Iterator[WorkItem]:
        if isinstance(index, str):
            yield self._item(uri, uri, basename(uri), {"error": index})
            return
        for member, details in explain(index):
            picture = re.sub(r"(?i)\.json$", ".jpg", member)
            name = member if picture in index.bad else picture
            yield self._item(uri, f"{uri}#{name}", _short(name), details)
        for stem, pair in _pair(iter(index.files)).items():
            member = pair.get("jpg", f"{stem}.jpg")
            # The cut or refused half has an item of its own already, which tells of both.
            if len(pair) < 2 and _pair_is_bad(stem, index):
                continue
            if "jpg" not in pair and not _OFFICIAL_NAME.search(stem):
                continue
            details = {}
            if "json" in pair:
                place = index.files[pair["json"]]
                details["json"] = [place.offset, place.length]
            if "jpg" not in pair:
                details["picture"] = False
            offset, length = (-1, -1)
            if "jpg" in pair:
                offset, length = index.files[member].offset, index.files[member].length
            yield self._item(uri, f"{uri}#{member}", _short(stem), details, offset, length)

    def _item(
        self, uri: str, source_id: str, name: str, details: dict[str, Any], offset: int = -1, length: int = -1
    ) -> WorkItem:
        return file_item(self.name, uri, source_id, name, details, offset, length)


def _json_name(source_id: str) -> str:
    return f"{source_id.rpartition('#')[2].rsplit('.', 1)[0]}.json"


def _pair(names: Iterator[str]) -> dict[str, dict[str, str]]:
    """Files by the stem that a picture shares with its JSON."""
    pairs: dict[str, dict[str, str]] = {}
    for name in names:
        match = _PAIR.match(name)
        if match:
            kind = "json" if match["kind"].lower() == "json" else "jpg"
            pairs.setdefault(match["stem"], {})[kind] = name
    return pairs


def _pair_is_bad(stem: str, index: TarIndex) -> bool:
    return any(f"{stem}.{suffix}" in index.bad for suffix in ("jpg", "jpeg", "json"))


def _official(uri: str) -> bool:
    match = _PAIR.match(uri)
    return match is not None and _OFFICIAL_NAME.search(match["stem"]) is not None


def _no_pair(index: TarIndex | str) -> dict[str, str]:
    """For a tar in which there is nothing of ours, what there is instead."""
    names = list(index.files) if isinstance(index, TarIndex) else []
    found = f"{len(names)} files such as {names[0]}" if names else "no file at all"
    return {"error": f"the tar holds no pair of NAME.jpg and NAME.json, but {found}; {_ADVICE}"}


def _short(name: str) -> str:
    return basename(name).rsplit(".", 1)[0] or name
