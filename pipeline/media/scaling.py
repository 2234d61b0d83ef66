"""Sizes of stored frames, and annotations carried over from the original frame to the stored one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trackmill.schemas.boxes import Boxes, box_areas, clip_boxes, overlapping_frame
from trackmill.schemas.masks import CroppedMask, crop_mask, decode_counts
from trackmill.schemas.media import Annotations

Size = tuple[int, int]
"""Height and width in pixels."""


def stored_size(original: Size, longest_side: int) -> Size:
    """Size of a frame after scaling its longer side down to `longest_side`, never up; no side falls below one."""
    longest = max(original)
    if longest <= longest_side:
        return original
    # Whole-number arithmetic, so that a size never depends on how a float happens to round.
    height, width = (max(1, (2 * side * longest_side + longest) // (2 * longest)) for side in original)
    return height, width


def annotations_of_frame(
    annotations: Annotations | None, original: Size, image: NDArray[np.uint8], *, amodal: bool = False
) -> Annotations | None:
    """Annotations as a `Frame` holds them, beside pixels that were scaled; None stays None.

    Args:
        annotations: in pixels of the original frame.
        original: its height and width.
        image: (H, W, 3) the frame at its stored size.
        amodal: see `scale_annotations`.
    """
    if annotations is None:
        return None
    return scale_annotations(annotations, original, (image.shape[0], image.shape[1]), amodal=amodal)


def scale_annotations(annotations: Annotations, original: Size, stored: Size, *, amodal: bool = False) -> Annotations:
    """Annotations in stored pixels.

    Boxes are scaled by the exact factors of both axes and cut at the border. An object or ignored region with less
    than one square pixel in the frame is dropped; a mask without a pixel left becomes None.

    Args:
        annotations: in pixels of the original frame.
        original, stored: the two sizes.
        amodal: boxes of objects are not cut; the same objects are dropped.
    """
    boxes = _scale_boxes(annotations.boxes, original, stored)
    kept = np.flatnonzero(overlapping_frame(boxes, *stored)).tolist()
    if not amodal:
        boxes = clip_boxes(boxes, *stored)
    ignore = clip_boxes(_scale_boxes(annotations.ignore, original, stored), *stored)
    return Annotations(
        boxes=boxes[kept],
        ids=[annotations.ids[i] for i in kept],
        scores=[annotations.scores[i] for i in kept],
        masks=[scale_mask(annotations.masks[i], original, stored) for i in kept],
        ignore=ignore[box_areas(ignore) >= 1],
    )


def scale_mask(mask: CroppedMask | None, original: Size, stored: Size) -> CroppedMask | None:
    """A cropped mask in stored pixels, by nearest neighbour.

    Equal to `trackmill.schemas.masks.resize_cropped` on the pasted mask, without ever making the full frame.

    Returns:
        None where no pixel centre of the stored frame falls on the object.
    """
    if mask is None or original == stored:
        return mask
    first_row, rows = _samples(mask.y, mask.height, original[0], stored[0])
    first_column, columns = _samples(mask.x, mask.width, original[1], stored[1])
    if rows.size == 0 or columns.size == 0:
        return None
    pixels = decode_counts(mask.counts, mask.height, mask.width)
    crop = crop_mask(pixels[np.ix_(rows, columns)])
    if crop is None:
        return None
    return CroppedMask(
        x=crop.x + first_column, y=crop.y + first_row, height=crop.height, width=crop.width, counts=crop.counts
    )


def _samples(start: int, length: int, original: int, stored: int) -> tuple[int, NDArray[np.int64]]:
    """The first stored pixel whose centre falls on `start` .. `start + length`, and what each one reads there."""
    scale = stored / original
    low = max(0, int(np.floor(start * scale)) - 1)
    high = min(stored, int(np.ceil((start + length) * scale)) + 1)
    read = np.clip(((np.arange(low, high) + 0.5) / scale).astype(np.int64), 0, original - 1) - start
    inside = np.flatnonzero((read >= 0) & (read < length))
    if inside.size == 0:
        return low, inside
    return low + int(inside[0]), read[inside]


def _scale_boxes(boxes: Boxes, original: Size, stored: Size) -> Boxes:
    factors = np.array([stored[1] / original[1], stored[0] / original[0]] * 2, np.float64)
    return (np.asarray(boxes, np.float64).reshape(-1, 4) * factors).astype(np.float32)
