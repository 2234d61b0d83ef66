"""Source `sav`: Segment Anything Video, both as published for training and for validation and test.

Training: `X.mp4` at 24 frames a second with `X_manual.json`, `X_auto.json` or both. Validation and test: a folder of
JPEG frames, and one of PNG masks for each object (`trackmill.pipeline.sources.sav_folders`). In both, every fourth
frame is annotated; the annotated frames are the ones that are stored.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import orjson

from trackmill.pipeline.media.errors import BadItem, MissingAnnotation, NothingToStore
from trackmill.pipeline.media.video_headers import VideoHeader
from trackmill.pipeline.sources.apart import pair_apart
from trackmill.pipeline.sources.base import Claim, ReadSettings, Source
from trackmill.pipeline.sources.clips import Clip, clip_item, cut_clips, num_kept, source_frames
from trackmill.pipeline.sources.sav_folders import SavFolders
from trackmill.pipeline.sources.sav_masklets import Masklets, read_masklets
from trackmill.pipeline.sources.video_cache import VideoCache
from trackmill.pipeline.sources.video_files import probe_all, read_clip, unreadable_when_planned
from trackmill.pipeline.storage.files import FileInfo, basename
from trackmill.schemas.media import Media, WorkItem

LICENSE = "CC BY 4.0"

STRIDE = 4
"""Video frames from one annotated frame to the next."""

_FILE = re.compile(r"^(?P<stem>.*?)(?:\.(?P<video>(?i:mp4))|_(?P<kind>manual|auto)\.(?i:json))$", re.DOTALL)
_OFFICIAL_NAME = re.compile(r"(^|/)sav_\d+$")


class Sav(Source):
    """Clips with the masklets that people (`manual`) and SAM 2 (`auto`) drew.

    By itself it takes an MP4 that has a JSON beside it; named by `--source`, every MP4.
    """

    name = "sav"
    version = 1
    annotated = True
    looked_for = "X.mp4 with X_manual.json or X_auto.json, or JPEGImages_24fps/ with Annotations_6fps/"

    def __init__(self, settings: ReadSettings) -> None:
        super().__init__(settings)
        self._cache = VideoCache(settings)
        self._folders = SavFolders(settings, self.name)
        self._masklets: tuple[str, list[Masklets]] = ("", [])

    def claim(self, files: Sequence[FileInfo]) -> Claim:
        """Group files by video; only a video's header is read, never a JSON."""
        claim = self._folders.claim(files, self.explicit)
        groups: dict[str, dict[str, str]] = {}
        for file in files:
            match = _FILE.match(file.uri)
            if match and file.uri not in claim.used:
                groups.setdefault(match["stem"], {})[match["kind"] or "video"] = file.uri
        self._join_apart(groups)
        groups = {stem: group for stem, group in sorted(groups.items()) if self._is_ours(stem, group)}
        videos = [group["video"] for group in groups.values() if "video" in group]
        headers = dict(zip(videos, probe_all(videos, self.settings), strict=True))
        for stem, group in groups.items():
            claim.used.update(group.values())
            claim.items += self._items(stem, group, headers.get(group.get("video", "")))
        return claim

    def read(self, item: WorkItem) -> Media:
        """Decode a clip and its masklets."""
        details = orjson.loads(item.details)
        if details.get("layout") == "folders":
            return self._folders.read(item, details)
        if details.get("video") is False:
            raise BadItem(f"{item.source_id}: there are annotations, but the video is missing")
        if "manual" not in details and "auto" not in details:
            raise MissingAnnotation(
                f"{item.uri}: neither _manual.json nor _auto.json lies beside the video; "
                f"mine it without annotations by --source videos"
            )
        video = self._cache.get(item.uri)
        if "error" in details:
            raise unreadable_when_planned(item.uri, details["error"])
        masklets = self._masklets_of(item.uri, details)
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

    def _join_apart(self, groups: dict[str, dict[str, str]]) -> None:
        """Give annotations in a folder of their own (`annotations/` beside `videos/`) to their videos."""
        alone = {stem: stem for stem, group in groups.items() if list(group) == ["video"]}
        for notes, stem in pair_apart(alone, [stem for stem, group in groups.items() if "video" not in group]).items():
            groups[stem] |= groups.pop(notes)

    def _is_ours(self, stem: str, group: dict[str, str]) -> bool:
        if "video" not in group:
            # `_auto.json` is a common name; without a video only an official one is surely ours.
            return _OFFICIAL_NAME.search(stem) is not None
        return self.explicit or len(group) > 1

    def _items(self, stem: str, group: dict[str, str], header: VideoHeader | str | None) -> list[WorkItem]:
        details: dict[str, Any] = {kind: group[kind] for kind in ("manual", "auto") if kind in group}
        name = basename(stem)
        whole = Clip(0, 0, 1)
        if header is None:
            # Named after the video that should be there, so that it is the same item once it is.
            uri = f"{stem}.mp4"
            return [clip_item(self.name, uri, name, whole, STRIDE, {**details, "video": False})]
        uri = group["video"]
        if not details:
            return [clip_item(self.name, uri, name, whole, STRIDE, details)]
        if isinstance(header, str):
            return [clip_item(self.name, uri, name, whole, STRIDE, {**details, "error": header})]
        kept = num_kept(header.num_frames, STRIDE) or self.settings.frames_per_clip
        clips = cut_clips(kept, self.settings.frames_per_clip)
        return [clip_item(self.name, uri, name, clip, STRIDE, details) for clip in clips]

    def _masklets_of(self, uri: str, details: dict[str, str]) -> list[Masklets]:
        # The clips of a video come one after another, and its JSON is parsed once for all.
        if self._masklets[0] != uri:
            kinds = [kind for kind in ("manual", "auto") if kind in details]
            self._masklets = (uri, [Masklets.fetch(details[kind], kind) for kind in kinds])
        return self._masklets[1]
