"""What a source gave, held to its contract before it is stored: a source that breaks it ends the run."""

from __future__ import annotations

import re

import numpy as np

from trackmill.schemas.boxes import MAX_REACH, overlapping_frame
from trackmill.schemas.errors import JobError
from trackmill.schemas.media import Annotations, Media

_TOLERANCE = 0.01
"""Pixels by which a box may leave its frame: boxes are stored to a hundredth of a pixel."""


class BadMedia(JobError):
    """A source broke its contract; the text names it and says how. No item is to blame."""


def check_media(source: str, media: Media) -> None:
    """Compare what was read with the contract of `Source.read`.

    Args:
        source: its name, for the error.
        media: what `read` returned.

    Raises:
        BadMedia: another type, kind or SHA-256, frames of another shape or of several sizes, or annotations of
            different lengths, with numbers that are not finite, or with a box outside the frame; of an amodal one, with
            an object's box of which no square pixel is inside.
    """
    if not isinstance(media, Media):
        raise BadMedia(f"source {source}: read returned {type(media).__name__}, should be a Media")
    if media.kind not in ("image", "clip") or not media.frames or (media.kind == "image" and len(media.frames) != 1):
        raise BadMedia(f"source {source}: kind {media.kind!r} with {len(media.frames)} frames; an image has one")
    if not re.fullmatch(r"[0-9a-f]{64}", str(media.sha256)):
        raise BadMedia(f"source {source}: sha256 is {media.sha256!r}, should be 64 hexadecimal digits")
    first = media.frames[0].image
    for place, frame in enumerate(media.frames):
        image = frame.image
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            found = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
            raise BadMedia(f"source {source}: frame {place} is {found}, should be uint8 (H, W, 3) in RGB")
        if image.shape != first.shape:
            raise BadMedia(f"source {source}: frame {place} is {image.shape}, the first {first.shape}: should be alike")
        if frame.annotations is not None:
            _check_annotations(f"source {source}: frame {place}", frame.annotations, image.shape, media.amodal)


def _check_annotations(where: str, annotations: Annotations, shape: tuple[int, ...], amodal: bool) -> None:
    height, width = shape[:2]
    count = len(annotations.boxes)
    lengths = {"ids": len(annotations.ids), "scores": len(annotations.scores), "masks": len(annotations.masks)}
    for name, length in lengths.items():
        if length != count:
            raise BadMedia(f"{where}: {count} annotated boxes, but {length} {name}")
    for identity in annotations.ids:
        if not -(1 << 63) <= identity < 1 << 63:
            raise BadMedia(f"{where}: id {identity} does not fit in 64 bits")
    for name, boxes in (("boxes", annotations.boxes), ("ignore", annotations.ignore)):
        boxes = np.asarray(boxes, np.float64)
        if boxes.shape != (len(boxes), 4) or not np.isfinite(boxes).all():
            raise BadMedia(f"{where}: {name} should be (N, 4) finite numbers, found {boxes.shape}")
        if amodal and name == "boxes":
            fine = overlapping_frame(boxes.astype(np.float32), height, width)
            outside = ~(fine & np.logical_and.reduce(np.abs(boxes) <= MAX_REACH, axis=1))
        else:
            sides = np.array([width, height, width, height])
            outside = np.logical_or.reduce((boxes < -_TOLERANCE) | (boxes > sides + _TOLERANCE), axis=1)
        if outside.any():
            box = boxes[np.flatnonzero(outside)[0]].tolist()
            raise BadMedia(f"{where}: {name} hold {box}, outside of the frame of {height} x {width} pixels")
