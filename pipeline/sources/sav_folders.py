"""SA-V as published for validation and test: folders of JPEG frames, and of one PNG mask per object and frame.

`JPEGImages_24fps/{video}/00000.jpg`, `Annotations_6fps/{video}/{object}/00000.png`, `00004.png`, ... An object without
a PNG for an annotated frame is not visible there.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from trackmill.pipeline.media.errors import BadItem, MissingAnnotation
from trackmill.pipeline.media.mask_pictures import decode_mask_picture
from trackmill.pipeline.sources.base import Claim, ReadSettings
from trackmill.pipeline.sources.clips import clip_item, cut_clips, num_kept, source_frames
from trackmill.pipeline.sources.frame_files import FrameFile, fetch_or_missing, read_frame_files
from trackmill.pipeline.storage.list_files import FileInfo
from trackmill.pipeline.storage.urls import join
from trackmill.schemas.masks import CroppedMask, crop_mask, mask_box
from trackmill.schemas.media import Annotations, Media, WorkItem

FPS = 24.0
_STRIDE = 4
_LICENSE = "CC BY 4.0"
_FRAME = re.compile(r"^(?P<root>.*/|)JPEGImages_24fps/(?P<video>[^/]+)/(?P<number>\d{5})\.jpg$")
_MASK = re.compile(r"^(?P<root>.*/|)Annotations_6fps/(?P<video>[^/]+)/(?P<object>\d+)/(?P<number>\d{5})\.png$")


@dataclass(slots=True)
class _Video:
    frames: list[int] = field(default_factory=list)
    masks: dict[str, list[int]] = field(default_factory=dict)
    files: set[str] = field(default_factory=set)


class SavFolders:
    """Claims and reads the folder layout on behalf of the source `sav`."""

    def __init__(self, settings: ReadSettings, source: str) -> None:
        self._settings = settings
        self._source = source

    def claim(self, files: Sequence[FileInfo], explicit: bool) -> Claim:
        """Videos that have frames and masks; with `explicit`, also those without masks."""
        videos: dict[tuple[str, str], _Video] = {}
        for file in files:
            if match := _FRAME.match(file.uri):
                video = videos.setdefault((match["root"], match["video"]), _Video())
                video.frames.append(int(match["number"]))
            elif match := _MASK.match(file.uri):
                video = videos.setdefault((match["root"], match["video"]), _Video())
                video.masks.setdefault(match["object"], []).append(int(match["number"]))
            else:
                continue
            video.files.add(file.uri)
        claim = Claim()
        for (root, name), video in sorted(videos.items()):
            if video.masks or explicit:
                claim.used |= video.files
                claim.items += self._items(root, name, video)
        return claim

    def read(self, item: WorkItem, details: dict[str, Any]) -> Media:
        """Decode a clip; see `trackmill.pipeline.sources.base.Source.read`."""
        if details["frames"] == 0:
            raise BadItem(f"{item.source_id}: there are masks, but the folder of frames is missing")
        if not details["annotated"]:
            raise MissingAnnotation(
                f"{item.uri}: no folder of masks belongs to it; mine its frames without annotations by --source frames"
            )
        files = []
        for index in source_frames(item):
            uri = join(item.uri, f"{index:05d}.jpg")
            files.append(FrameFile(uri, index, f"{item.source_id}: frame {index} is missing ({uri})"))
        return read_frame_files(
            files,
            lambda file, height, width: self._annotations(details, file.index, height, width),
            fps=FPS,
            num_source_frames=details["frames"],
            annotated=True,
            license=self._settings.license or _LICENSE,
            where=item.source_id,
            settings=self._settings,
        )

    def _items(self, root: str, name: str, video: _Video) -> list[WorkItem]:
        uri = f"{root}JPEGImages_24fps/{name}"
        total = max(video.frames) + 1 if video.frames else 0
        clips = cut_clips(max(1, num_kept(total, _STRIDE)), self._settings.frames_per_clip)
        items = []
        for clip in clips:
            wanted = set(range(clip.start * _STRIDE, (clip.start + clip.length) * _STRIDE, _STRIDE))
            # Which masks there are is settled by the listing, so that one that cannot be read later is an error.
            masks = {each: sorted(wanted.intersection(numbers)) for each, numbers in sorted(video.masks.items())}
            details = {
                "layout": "folders",
                "frames": total,
                "annotated": bool(video.masks),
                "folder": f"{root}Annotations_6fps/{name}",
                "masks": {each: numbers for each, numbers in masks.items() if numbers},
            }
            items.append(clip_item(self._source, uri, name, clip, _STRIDE, details))
        return items

    def _annotations(self, details: dict[str, Any], index: int, height: int, width: int) -> Annotations:
        ids: list[int] = []
        masks: list[CroppedMask] = []
        for name, numbers in details["masks"].items():
            if index not in numbers:
                continue
            uri = join(details["folder"], name, f"{index:05d}.png")
            gone = f"{uri}: was there when the work was planned, and is missing now"
            data = fetch_or_missing(uri, gone, self._settings)
            mask = decode_mask_picture(data, uri, max_pixels=self._settings.max_pixels)
            if mask.shape != (height, width):
                raise BadItem(f"{uri}: is {mask.shape[0]} x {mask.shape[1]}, its frame {height} x {width}")
            cropped = crop_mask(mask)
            if cropped is not None:
                ids.append(int(name))
                masks.append(cropped)
        boxes = np.array([mask_box(mask) for mask in masks], np.float32).reshape(-1, 4)
        return Annotations(boxes=boxes, ids=ids, scores=[1.0] * len(ids), masks=list(masks))
