"""Source `webdataset`: the pictures inside tars, such as WebDataset shards, and inside zips, read in place.

One item for each member with the suffix of a picture; captions, JSON and whatever else lies beside it are left alone.
`auto` never takes a tar for such: mined shards are tars of pictures too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from trackmill.pipeline.media.fetching import fetch_bytes
from trackmill.pipeline.sources.base import Claim, Source, file_item
from trackmill.pipeline.sources.images import SUFFIXES as PICTURES
from trackmill.pipeline.sources.images import picture_media
from trackmill.pipeline.sources.tar_index import SUFFIXES as TARS
from trackmill.pipeline.sources.tar_index import explain, index_tars, raise_explained
from trackmill.pipeline.sources.tar_members import TarIndex
from trackmill.pipeline.sources.zip_directory import MEMBER, ZipEntry
from trackmill.pipeline.sources.zip_index import index_zips, read_member
from trackmill.pipeline.storage.list_files import FileInfo
from trackmill.pipeline.storage.urls import basename
from trackmill.schemas.media import Media, WorkItem

ZIPS = (".zip",)

_MOST_NAME_BYTES = 512
"""Name and extra field of most members of zips; of a member with longer ones the end is read by itself."""


class WebDataset(Source):
    """Pictures in tars and zips; only where `--source` names it."""

    name = "webdataset"
    version = 1
    annotated = False
    looked_for = "tars and zips that hold pictures"
    suffixes = (*TARS, *ZIPS)
    by_name_only = True

    def claim(self, files: Sequence[FileInfo]) -> Claim:
        """Walk the headers of tars and the directories of zips."""
        claim = Claim()
        names = [file.uri for file in files]
        tars = [file for file in files if file.uri.lower().endswith(TARS)]
        zips = [uri for uri in names if uri.lower().endswith(ZIPS)]
        claim.used.update((tar.uri for tar in tars), zips)
        for tar, index in zip(tars, index_tars(tars), strict=True):
            claim.items += self._in_tar(tar.uri, index)
        for uri, members in zip(zips, index_zips(zips), strict=True):
            claim.items += self._in_zip(uri, members)
        return claim

    def read(self, item: WorkItem) -> Media:
        """Decode a picture."""
        details = orjson.loads(item.details)
        raise_explained(item.source_id, details)
        limit = self.settings.max_item_bytes
        if "zip" in details:
            data = read_member(item.uri, ZipEntry(**details["zip"]), item.source_id, limit)
        else:
            data = fetch_bytes(item.uri, item.offset, item.length, max_bytes=limit)
        return picture_media(data, item.source_id, self.settings)

    def ranges(self, item: WorkItem) -> list[tuple[str, int, int]]:
        """That of the picture; of a member of a zip with the header in front of it, whose length is only in there."""
        entry = orjson.loads(item.details).get("zip")
        if not entry:
            return super().ranges(item)
        return [(item.uri, entry["offset"], MEMBER.size + _MOST_NAME_BYTES + entry["packed"])]

    def _in_tar(self, uri: str, index: TarIndex | str) -> list[WorkItem]:
        items = [
            self._item(uri, member, details)
            for member, details in explain(index)
            if not member or details.get("truncated") or _is_picture(member)
        ]
        members = {} if isinstance(index, str) else index.files
        items += [
            self._item(uri, name, {}, place.offset, place.length)
            for name, place in members.items()
            if _is_picture(name)
        ]
        return items or [self._none(uri, "tar", list(members))]

    def _in_zip(self, uri: str, members: dict[str, ZipEntry] | str) -> list[WorkItem]:
        if isinstance(members, str):
            return [self._item(uri, "", {"error": members})]
        items = [
            self._item(uri, name, {"zip": entry.as_details()}) for name, entry in members.items() if _is_picture(name)
        ]
        return items or [self._none(uri, "zip", list(members))]

    def _none(self, uri: str, kind: str, members: list[str]) -> WorkItem:
        found = f"{len(members)} files such as {members[0]}" if members else "no file at all"
        return self._item(uri, "", {"error": f"the {kind} holds no picture, but {found}"})

    def _item(self, uri: str, member: str, details: dict[str, Any], offset: int = -1, length: int = -1) -> WorkItem:
        source_id = f"{uri}#{member}" if member else uri
        name = basename(member or uri).rsplit(".", 1)[0]
        return file_item(self.name, uri, source_id, name, details, offset, length)


def _is_picture(name: str) -> bool:
    return name.lower().endswith(PICTURES)
