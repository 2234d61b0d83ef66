"""Source `frames`: folders of numbered pictures, each a video cut into frames, with masks where the layout has them.

DAVIS, YouTube-VOS, YouTube-VIS and MOSE keep videos so (`JPEGImages/.../NAME/00000.jpg`, masks in `Annotations/`), and
so do `ffmpeg -i clip.mp4 frame_%04d.png` and loops over OpenCV. Numbers in names count: they may begin anywhere, have
gaps or be five apart, and several videos may share a folder with a prefix each. A frame's index is its number less the
first one.

All frames that have a mask are stored; of the others about `read.label_fps` a second.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import orjson
from pydantic import Field

from trackmill.pipeline.media.errors import BadItem
from trackmill.pipeline.media.fetching import fetch_bytes
from trackmill.pipeline.media.mask_pictures import decode_label_picture
from trackmill.pipeline.media.picture_headers import PictureHeader, read_picture_header
from trackmill.pipeline.sources.base import Claim, Source
from trackmill.pipeline.sources.clips import Clip, clip_item, cut_clips, stride_for
from trackmill.pipeline.sources.frame_files import FrameFile, read_frame_files
from trackmill.pipeline.sources.frame_masks import (
    MaskFolders,
    annotations_of_mask,
    are_black_and_white,
    mask_folders,
    read_frame_mask,
)
from trackmill.pipeline.sources.frame_names import (
    FrameSequence,
    among_masks,
    find_sequences,
    in_video_layout,
    looks_like_video,
    steps,
)
from trackmill.pipeline.sources.probing import probe_files
from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.files import exists
from trackmill.pipeline.storage.list_files import FileInfo
from trackmill.pipeline.storage.urls import basename, join
from trackmill.schemas.config import Settings
from trackmill.schemas.errors import InputError
from trackmill.schemas.media import Annotations, Media, WorkItem

log = logging.getLogger("trackmill")

_MOST_LINES = 20
_LOOKED_AT = 4
_FEW_LEVELS = 32
"""Gray frames of a video have more; masks have a level for each object."""

_FRAME_MODES = ("RGB", "L", "YCbCr", "CMYK", "RGBA")


class FrameSettings(Settings):
    """What names of pictures do not tell."""

    fps: float = Field(
        30.0,
        gt=0,
        le=1000,
        description="Of folders of pictures: frames a second, where numbers follow each other; 30 is YouTube-VOS, "
        "DAVIS has 24.",
    )


class Frames(Source):
    """Clips out of folders of numbered pictures.

    By itself it takes folders that are videos by their layout, or by names, lengths and headers of their files
    (`trackmill.pipeline.sources.frame_names.looks_like_video`); named by `--source`, every numbered picture.
    """

    name = "frames"
    version = 1
    annotated = True
    looked_for = "folders of numbered pictures, such as JPEGImages/NAME/00000.jpg or frame_0001.png"
    needs = r"[0-9][.][A-Za-z0-9]+$"
    Config = FrameSettings

    def claim(self, files: Sequence[FileInfo]) -> Claim:
        """Sequences of frames, and the masks beside them."""
        claim = Claim()
        folders = MaskFolders(find_sequences(files))
        sequences = self._videos(folders)
        for sequence in sequences:
            masks = folders.of(sequence)
            claim.items += self._items(sequence, masks[0] if masks else None)
            claim.used.update(uri for each in [sequence, *masks] for uri in each.uris())
        for folder, masks in folders.without_frames():
            claim.items.append(self._without_frames(folder, masks[0]))
            claim.used.update(uri for each in masks for uri in each.uris())
        if not self.explicit:
            self._tell(sequences)
        _tell_of_masks_outside(sequence for sequence in sequences if not folders.of(sequence))
        return claim

    def read(self, item: WorkItem) -> Media:
        """Decode a clip and its masks."""
        details = orjson.loads(item.details)
        if "problem" in details:
            raise BadItem(f"{item.source_id}: {details['problem']}")
        files = []
        for index, name in zip(details["indices"], details["names"]):
            uri = join(item.uri, name)
            gone = f"{uri}: there is a mask of this frame, or was a frame when the work was planned; it is missing now"
            files.append(FrameFile(uri, index, gone))
        masks = {}
        for file, name in zip(files, details["masks"]):
            if name is not None:
                uri = join(details["masks_in"], name)
                masks[file.index] = uri, read_frame_mask(uri, self.settings)
        black_and_white = are_black_and_white([mask for _, mask in masks.values()])

        def annotate(file: FrameFile, height: int, width: int) -> Annotations | None:
            if file.index not in masks:
                return None
            uri, mask = masks[file.index]
            return annotations_of_mask(mask, height, width, black_and_white, uri)

        return read_frame_files(
            files,
            annotate,
            fps=details["fps"],
            num_source_frames=details["frames"],
            annotated=details["masks_in"] is not None,
            license=self.settings.license or "unknown",
            where=item.source_id,
            settings=self.settings,
        )

    def _videos(self, folders: MaskFolders) -> list[FrameSequence]:
        """What is taken: everything if asked by name, else what is a video by names, lengths and headers."""
        begun = [each for each in folders.frames if not self.planned.isdisjoint(each.uris())]
        if begun and self.explicit:
            raise InputError(
                f"{redact(begun[0].folder)}: this output was begun with its pictures one by one; mine them as videos "
                "into another --output"
            )
        if begun:
            log.info(
                "%s: numbered pictures stay single ones, as this output was begun%s",
                redact(begun[0].folder),
                f"; so do those of {len(begun) - 1} more folders" if len(begun) > 1 else "",
            )
        if self.explicit:
            return _without_masks(folders.frames)
        known = {id(each) for each in begun}
        likely = [
            each
            for each in folders.frames
            if id(each) not in known and looks_like_video(each, labelled=bool(folders.of(each)))
        ]
        looked_at = [_some(each) for each in likely]
        uris = [uri for some in looked_at for uri in some]
        headers = dict(zip(uris, probe_files(uris, _header, "pictures", _nothing_known), strict=True))
        alike = [(each, some) for each, some in zip(likely, looked_at) if _alike([headers[uri] for uri in some])]
        # Masks may lie in a folder of any name: gray pictures of a few levels.
        gray = [uri for each, some in alike if each.suffix == ".png" for uri in some if _is_gray(headers[uri])]
        levels = dict(zip(gray, probe_files(gray, self._count_levels, "pictures", _as_many_levels), strict=True))
        return [each for each, some in alike if any(levels.get(uri, _FEW_LEVELS) >= _FEW_LEVELS for uri in some)]

    @property
    def _count_levels(self) -> Callable[[str], int]:
        return partial(_num_levels, max_bytes=self.settings.max_item_bytes, max_pixels=self.settings.max_pixels)

    def _items(self, sequence: FrameSequence, masks: FrameSequence | None) -> list[WorkItem]:
        labelled = {number: basename(file.uri) for number, file in masks.files.items()} if masks else {}
        names = {number: basename(file.uri) for number, file in sequence.files.items()}
        numbers = sorted(names.keys() | labelled.keys())
        fps = self._fps
        kept = _kept(numbers, labelled.keys(), stride_for(fps, self.settings.label_fps))
        common: dict[str, Any] = {
            "fps": fps,
            "frames": numbers[-1] - numbers[0] + 1,
            "masks_in": masks.folder if masks else None,
        }
        if doubles := [*sequence.doubles, *(masks.doubles if masks else [])]:
            common["problem"] = f"two pictures have the same number, one of them is {doubles[0]}; rename or remove one"
        stride = steps(kept).most_common(1)[0][0] if len(kept) > 1 else 1
        items = []
        for clip in cut_clips(len(kept), self.settings.frames_per_clip):
            wanted = kept[clip.start : clip.start + clip.length]
            details = {
                **common,
                "indices": [number - numbers[0] for number in wanted],
                # A mask of a frame that is not there gives the frame its name.
                "names": [names.get(number) or _stem(labelled[number]) + sequence.suffix for number in wanted],
                "masks": [labelled.get(number) for number in wanted],
            }
            items.append(self._item(sequence, clip, stride, wanted[0] - numbers[0], details))
        return items

    def _without_frames(self, folder: str, masks: FrameSequence) -> WorkItem:
        problem = f"there are masks in {masks.folder}, but their frames, which should lie in {folder}, are missing"
        sequence = FrameSequence(folder=folder, prefix=masks.prefix, suffix=".jpg")
        return self._item(sequence, Clip(0, 0, 1), 1, 0, {"problem": problem})

    def _item(
        self, sequence: FrameSequence, clip: Clip, stride: int, first_frame: int, details: dict[str, Any]
    ) -> WorkItem:
        # Several sequences may share a folder, so the name says which of its files are meant.
        files = join(sequence.folder, f"{sequence.prefix}*{sequence.suffix}")
        name = sequence.prefix.strip("_-. ") or basename(sequence.folder)
        item = clip_item(self.name, files, name, clip, stride, details)
        return replace(item, uri=sequence.folder, first_frame=first_frame)

    @property
    def _fps(self) -> float:
        assert isinstance(self.config, FrameSettings)
        return self.config.fps

    def _tell(self, sequences: Sequence[FrameSequence]) -> None:
        for sequence in sequences[:_MOST_LINES]:
            log.info(
                "%s: %d numbered pictures are read as one video of %g frames a second; --source images takes them one "
                "by one, --source frames --set source_settings.fps=N has another rate",
                redact(join(sequence.folder, f"{sequence.prefix}*{sequence.suffix}")),
                len(sequence.files),
                self._fps,
            )
        if len(sequences) > _MOST_LINES:
            log.info("%d more folders of numbered pictures are read as videos likewise", len(sequences) - _MOST_LINES)


def _without_masks(sequences: list[FrameSequence]) -> list[FrameSequence]:
    """Sequences less those of masks in layouts that are not known; all, where there is nothing else."""
    frames = [each for each in sequences if not among_masks(each)]
    if not frames or len(frames) == len(sequences):
        return sequences
    masks = [each for each in sequences if among_masks(each)]
    log.warning(
        "%s: left alone, since its name says that these are no frames%s; masks are read where frames lie in "
        "JPEGImages/NAME and masks in Annotations/NAME",
        redact(masks[0].folder),
        f" (and {len(masks) - 1} more)" if len(masks) > 1 else "",
    )
    return frames


def _tell_of_masks_outside(unlabelled: Iterable[FrameSequence]) -> None:
    """Warn where a folder of frames was given without the folder of masks that lies beside it."""
    for sequence in islice((each for each in unlabelled if in_video_layout(each)), _LOOKED_AT):
        for folder in mask_folders(sequence.folder):
            if exists(folder):
                log.warning(
                    "%s: its masks in %s are no part of the input; give the folder above both to have them",
                    redact(sequence.folder),
                    redact(folder),
                )
                break


def _kept(numbers: Sequence[int], labelled: Container[int], stride: int) -> list[int]:
    """Numbers of the frames that are stored: all that have a mask, and otherwise one in about `stride` numbers."""
    kept, due = [], numbers[0]
    for number in numbers:
        if number >= due:
            due = number + stride
        elif number not in labelled:
            continue
        kept.append(number)
    return kept


def _some(sequence: FrameSequence) -> list[str]:
    """A few files of a sequence, first and last among them."""
    numbers = sequence.numbers
    places = {round(i * (len(numbers) - 1) / (_LOOKED_AT - 1)) for i in range(_LOOKED_AT)}
    return [sequence.files[numbers[place]].uri for place in sorted(places)]


def _is_gray(header: PictureHeader | None) -> bool:
    return header is not None and header.mode == "L"


def _header(uri: str) -> PictureHeader | None:
    try:
        return read_picture_header(uri)
    except (BadItem, OSError):
        return None


def _nothing_known(reason: str) -> None:
    """Of a picture whose header could not be looked at; reading it will say why."""


def _num_levels(uri: str, max_bytes: int, max_pixels: int) -> int:
    """How many levels a gray picture has; `_FEW_LEVELS` where it cannot be read, which reading it will say."""
    try:
        data = fetch_bytes(uri, max_bytes=max_bytes)
        return int(np.unique(decode_label_picture(data, uri, max_pixels=max_pixels)[0]).size)
    except (BadItem, OSError):
        return _FEW_LEVELS


def _as_many_levels(reason: str) -> int:
    return _FEW_LEVELS


def _alike(headers: Sequence[PictureHeader | None]) -> bool:
    """Whether pictures may be frames of one video: of one size, and in colours or grays rather than numbers.

    One whose header cannot be read says nothing.
    """
    known = [header for header in headers if header is not None]
    sizes = {(header.height, header.width) for header in known}
    return len(sizes) <= 1 and all(header.mode in _FRAME_MODES for header in known)


def _stem(name: str) -> str:
    return name.rsplit(".", 1)[0]
