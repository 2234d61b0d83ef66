"""Masks as polygons, for formats that want them: the outlines of each piece; holes are lost, as these have none."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trackmill.schemas.masks import CroppedMask, decode_counts, mask_box

_TOLERANCE_PX = 0.5
"""How far the outline may be off: a corner of a pixel and the middle of its side are as good."""
_FEWEST_POINTS = 3


def polygons(mask: CroppedMask) -> list[NDArray[np.float64]]:
    """The outlines of a mask, the largest first.

    Args:
        mask: of a frame.

    Returns:
        Each (P, 2) float64 `x, y` in pixels of the frame, without the first point again at the end; P is 3 or more.

    Raises:
        ValueError: its run lengths are broken.
    """
    from skimage.measure import approximate_polygon, find_contours

    pixels = np.pad(decode_counts(mask.counts, mask.height, mask.width), 1)
    found = []
    for contour in find_contours(pixels.astype(np.float32), 0.5, fully_connected="high"):  # type: ignore[no-untyped-call]
        area = _area(contour)
        if area <= 0:  # the outline of a hole runs the other way
            continue
        corners = approximate_polygon(contour, _TOLERANCE_PX)[:-1]  # type: ignore[no-untyped-call]
        if len(corners) < _FEWEST_POINTS:
            corners = contour[:-1]
        # Rows and columns count centres of pixels of the padded crop; edges of pixels lie half a pixel further.
        points = corners[:, ::-1] - 0.5 + np.array([mask.x, mask.y])
        points = np.clip(points, [mask.x, mask.y], [mask.x + mask.width, mask.y + mask.height])
        found.append((area, points))
    if not found:  # pixels that touch by their corners only
        x0, y0, x1, y1 = mask_box(mask)
        return [np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], np.float64)]
    return [points for _, points in sorted(found, key=lambda each: -each[0])]


def _area(contour: NDArray[np.float64]) -> float:
    y, x = contour[:, 0], contour[:, 1]
    return float(np.sum(x[:-1] * y[1:] - x[1:] * y[:-1]) / 2)
