"""Source `sav`: Segment Anything Video, both as published for training and for validation and test.

Training: `X.mp4` at 24 frames a second with `X_manual.json`, `X_auto.json` or both, in folders or in the official
`sav_000.tar`, read in place. Validation and test: a folder of
JPEG frames, and one of PNG masks for each object (`trackmill.pipeline.sources.sav_folders`). In both, every fourth
frame is annotated; the annotated frames are the ones that are stored.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import orjson

from trackmill.pipeline.media.errors import BadItem, MissingAnnotation, NothingToStore
from trackmill.pipeline.media.video_headers import VideoHeader
from trackmill.pipeline.sources.apart import pair_apart
from trackmill.pipeline.sources.base import Claim, ReadSettings, Source
from trackmill.pipeline.sources.clips import Clip, clip_item, cut_clips, num_kept, source_frames
from trackmill.pipeline.sources.sav_folders import SavFolders
from trackmill.pipeline.sources.sav_masklets import Masklets, read_masklets
from trackmill.pipeline.sources.tar_index import SUFFIXES as TAR_SUFFIXES
from trackmill.pipeline.sources.tar_index import explain, index_tars, raise_explained
from trackmill.pipeline.sources.video_cache import VideoCache
from trackmill.pipeline.sources.video_files import probe_all, read_clip, unreadable_when_planned
from trackmill.pipeline.storage.list_files import FileInfo
from trackmill.pipeline.storage.ranges import Place
from trackmill.pipeline.storage.urls import basename
from trackmill.schemas.media import Media, WorkItem

LICENSE = "CC BY 4.0"

STRIDE = 4
"""Video frames from one annotated frame to the next."""

_FILE = re.compile(r"^(?P<stem>.*?)(?:\.(?P<video>(?i:mp4))|_(?P<kind>manual|auto)\.(?i:json))$", re.DOTALL)
_OFFICIAL_NAME = re.compile(r"(^|[/#])sav_\d+$")


_Group = dict[str, Place]
"""The files of one video: `video`, `manual`, `auto`, those that there are."""


class Sav(Source):
    """Clips with the masklets that people (`manual`) and SAM 2 (`auto`) drew.

    By itself it takes an MP4 that has a JSON beside it, and tars called `sav_*.tar`; named by `--source`, every MP4 and
    every tar.
    """

    name = "sav"
    version = 1
    annotated = True
    looked_for = "X.mp4 with X_manual.json or X_auto.json, sav_*.tar, or JPEGImages_24fps/ with Annotations_6fps/"
    needs = r"(?i)[.]mp4$|_(manual|auto)[.]json$|JPEGImages_24fps/|Annotations_6fps/|(^|/)sav_[^/]*$"

    def __init__(self, settings: ReadSettings) -> None:
        super().__init__(settings)
        self._cache = VideoCache(settings)
        self._folders = SavFolders(settings, self.name)
        self._masklets: tuple[str, list[Masklets]] = ("", [])

    def claim(self, files: Sequence[FileInfo]) -> Claim:
        """Group files by video; only a video's header is read, never a JSON."""
        claim = self._folders.claim(files, self.explicit)
        groups = _groups(Place(file.uri) for file in files if file.uri not in claim.used)
        self._join_apart(groups)
        groups = {stem: group for stem, group in sorted(groups.items()) if self._is_ours(stem, group)}
        claim.used.update(place.uri for group in groups.values() for place in group.values())
        tars = [file for file in files if self._is_tar(file.uri)]
        claim.used.update(tar.uri for tar in tars)
        for uri, index in zip((tar.uri for tar in tars), index_tars(tars), strict=True):
            bad = [self._bad_item(uri, member, details) for member, details in explain(index)]
            members = {} if isinstance(index, str) else index.files
            inside = _groups(Place(uri, place.offset, place.length, name) for name, place in members.items())
            told = set() if isinstance(index, str) else set(_groups(Place(uri, member=name) for name in index.bad))
            inside = {
                stem: each
                for stem, each in inside.items()
                if "video" in each or (stem not in told and self._is_ours(stem, each))
            }
            if not bad and not any("video" in group for group in inside.values()):
                bad.append(self._bad_item(uri, "", {"error": f"the tar holds no MP4 among its {len(members)} files"}))
            claim.items += bad
            groups |= inside
        videos = [group["video"] for group in groups.values() if "video" in group]
        probed = probe_all(videos, self.settings)
        headers = {place.name: header for place, header in zip(videos, probed, strict=True)}
        for stem, group in groups.items():
            header = headers[group["video"].name] if "video" in group else None
            claim.items += self._items(stem, group, header)
        return claim

    def read(self, item: WorkItem) -> Media:
        """Decode a clip and its masklets."""
        details = orjson.loads(item.details)
        if details.get("layout") == "folders":
            return self._folders.read(item, details)
        if details.get("layout") == "tar":
            raise_explained(item.source_id, details)
        if details.get("video") is False:
            raise BadItem(f"{item.source_id}: there are annotations, but the video is missing")
        place = Place(item.uri, item.offset, item.length, details.get("member", ""))
        if "manual" not in details and "auto" not in details:
            unpacked = "unpack the tar and " if place.member else ""
            raise MissingAnnotation(
                f"{place.name}: neither _manual.json nor _auto.json lies beside the video; "
                f"{unpacked}mine it without annotations by --source videos"
            )
        video = self._cache.get(place)
        if "error" in details:
            raise unreadable_when_planned(place.name, details["error"])
        masklets = self._masklets_of(place, details)
        num_annotated = max(each.num_frames for each in masklets)
        wanted = [index for index in source_frames(item) if index // STRIDE < num_annotated]
        if not wanted:
            raise NothingToStore(f"{item.source_id}: only {num_annotated} frames are annotated")
        return read_clip(
            video,
            wanted,
            lambda frame: read_masklets(masklets, frame.index // STRIDE, frame.height, frame.width),
            annotated=True,
            license=self.settings.license or LICENSE,
            where=item.source_id,
        )

    def _join_apart(self, groups: dict[str, _Group]) -> None:
        """Give annotations in a folder of their own (`annotations/` beside `videos/`) to their videos."""
        alone = {stem: stem for stem, group in groups.items() if list(group) == ["video"]}
        for notes, stem in pair_apart(alone, [stem for stem, group in groups.items() if "video" not in group]).items():
            groups[stem] |= groups.pop(notes)

    def _is_ours(self, stem: str, group: _Group) -> bool:
        if "video" not in group:
            # `_auto.json` is a common name; without a video only an official one is surely ours.
            return _OFFICIAL_NAME.search(stem) is not None
        return self.explicit or len(group) > 1

    def _is_tar(self, uri: str) -> bool:
        name = basename(uri).lower()
        return name.endswith(TAR_SUFFIXES) and (self.explicit or name.startswith("sav_"))

    def _items(self, stem: str, group: _Group, header: VideoHeader | str | None) -> list[WorkItem]:
        details: dict[str, Any] = {kind: _written(group[kind]) for kind in ("manual", "auto") if kind in group}
        place = next(iter(group.values()))
        name = basename(stem.removeprefix(f"{place.uri}#") if place.member else stem)
        whole = Clip(0, 0, 1)
        if header is None:
            # Named after the video that should be there, so that it is the same item once it is.
            return [clip_item(self.name, f"{stem}.mp4", name, whole, STRIDE, {**details, "video": False})]
        video = group["video"]
        clips, more = [whole], {}
        if isinstance(header, str) and details:
            more = {"error": header}
        elif details:
            assert isinstance(header, VideoHeader)
            kept = num_kept(header.num_frames, STRIDE) or self.settings.frames_per_clip
            clips = cut_clips(kept, self.settings.frames_per_clip)
        if video.member:
            more["member"] = video.member
        items = [clip_item(self.name, video.name, name, clip, STRIDE, {**details, **more}) for clip in clips]
        return [replace(item, uri=video.uri, offset=video.offset, length=video.length) for item in items]

    def _bad_item(self, uri: str, member: str, details: dict[str, Any]) -> WorkItem:
        name = f"{uri}#{member}" if member else uri
        item = clip_item(self.name, name, basename(name), Clip(0, 0, 1), STRIDE, {**details, "layout": "tar"})
        return replace(item, uri=uri)

    def _masklets_of(self, video: Place, details: dict[str, Any]) -> list[Masklets]:
        # The clips of a video come one after another, and its JSON is parsed once for all.
        if self._masklets[0] != video.name:
            kinds = [kind for kind in ("manual", "auto") if kind in details]
            self._masklets = (video.name, [Masklets.fetch(_read(details[kind], video.uri), kind) for kind in kinds])
        return self._masklets[1]


def _groups(places: Iterable[Place]) -> dict[str, _Group]:
    """Files by the stem that a video shares with its annotations."""
    groups: dict[str, _Group] = {}
    for place in places:
        if match := _FILE.match(place.name):
            groups.setdefault(match["stem"], {})[match["kind"] or "video"] = place
    return groups


def _written(place: Place) -> str | dict[str, Any]:
    """A place of annotations in the details of an item: the URI, or a member of the tar that holds the video."""
    if not place.member:
        return place.uri
    return {"member": place.member, "offset": place.offset, "length": place.length}


def _read(written: str | dict[str, Any], tar: str) -> Place:
    return Place(written) if isinstance(written, str) else Place(tar, **written)
