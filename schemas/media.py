"""What travels between the stages of mining: planned items, decoded frames, annotations, proposals.

These are plain in-memory records; `trackmill.schemas.sample` is what ends up on disk.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from trackmill.schemas.boxes import Boxes, empty_boxes
from trackmill.schemas.masks import CroppedMask


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkItem:
    """One future sample, named without reading a pixel. Small enough that eleven million fit in a Parquet plan.

    Args:
        source: name of the source that can read it.
        source_id: unique over the corpus: the URI, `#member` for a file inside a tar, `#cNNN` for a clip of a video.
        key: sample key, derived from `source_id` by `trackmill.schemas.keys.sample_key`.
        uri: file that holds the pixels (a folder for a video kept as JPEG frames).
        offset, length: byte range of the pixels inside `uri`; -1, -1 for the whole file.
        frames: number of frames the sample will hold; 1 for a picture.
        first_frame, stride: index of the clip's first source frame, and source frames from one stored frame to
            the next.
        details: whatever else the source needs in order to read the item, as a JSON object.
    """

    source: str
    source_id: str
    key: str
    uri: str
    offset: int = -1
    length: int = -1
    frames: int = 1
    first_frame: int = 0
    stride: int = 1
    details: str = "{}"


@dataclass(slots=True, kw_only=True)
class Annotations:
    """What people or a data set say about one frame.

    Args:
        boxes: (N, 4) float32 `xyxy`, in pixels of the frame they belong to: of a `Frame`, its `image`. They lie inside
            it, unless `Media.amodal` says otherwise.
        ids: N identities, stable over the frames of a clip.
        scores: N confidences in 0..1 (1.0 where a person drew the object).
        masks: N masks of the same frame, None where there is only a box.
        ignore: (K, 4) float32 `xyxy` regions in the same pixels that are neither objects nor background (MOT
            distractors, crowds).
    """

    boxes: Boxes = field(default_factory=empty_boxes)
    ids: list[int] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    masks: list[CroppedMask | None] = field(default_factory=list)
    ignore: Boxes = field(default_factory=empty_boxes)


@dataclass(slots=True, kw_only=True)
class Frame:
    """One decoded frame at the size it will be stored in.

    Args:
        image: (H, W, 3) uint8 RGB.
        index: number of the frame in its video, 0 for a picture.
        time_s: presentation time from the start of the video, None for a picture.
        annotations: in pixels of `image`; None where the data set says nothing about this frame.
        encoded: the original JPEG bytes where they may be stored untouched; None means "encode `image`".
    """

    image: NDArray[np.uint8]
    index: int = 0
    time_s: float | None = None
    annotations: Annotations | None = None
    encoded: bytes | None = None


@dataclass(slots=True, kw_only=True)
class Media:
    """What a source reads for one work item. Everything in it is in pixels of the stored frames.

    Args:
        kind: `image` or `clip`.
        frames: at least one, all of one size.
        original_height, original_width: size before scaling, after any EXIF rotation; nothing else refers to it.
        sha256: of the bytes the pixels came from (the whole video file for a clip).
        num_bytes: how many bytes that were.
        annotated: whether the data set lists its objects here, so that whatever else is found may be a negative.
        amodal: whether boxes of objects may leave their frame, because they go round the whole object; at least a part
            of each lies inside.
        fps: frames per second of the source video, None for a picture.
        num_source_frames: length of the source video, None for a picture.
        license: as the data set states it, or `unknown`.
        conversions: what was done to the pixels besides scaling, e.g. `exif-rotated`, `cmyk-to-rgb`.
    """

    kind: str
    frames: list[Frame]
    original_height: int
    original_width: int
    sha256: str
    num_bytes: int
    annotated: bool
    amodal: bool = False
    fps: float | None = None
    num_source_frames: int | None = None
    license: str = "unknown"
    conversions: list[str] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class ProposalSet:
    """What a proposer found in one frame, in pixels of the frame it was given.

    Args:
        boxes: (M, 4) float32 `xyxy`, best first.
        scores: (M,) float32 in 0..1.
        masks: M masks of the same frame.
        refused: how many candidates were refused, by reason.
        refused_boxes: (R, 4) some of the refused, for looking at; `refused_reasons` names each one's reason.
        from_objects: the proposals are the frame's annotated objects themselves, in the same order.
    """

    boxes: Boxes
    scores: NDArray[np.float32]
    masks: list[CroppedMask | None]
    refused: dict[str, int] = field(default_factory=dict)
    refused_boxes: Boxes = field(default_factory=empty_boxes)
    refused_reasons: list[str] = field(default_factory=list)
    from_objects: bool = False
