"""A picture with its objects, which transforms take and return, and the choice of objects that are in view."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from trackmill.schemas.boxes import Boxes, box_areas, clip_boxes


@dataclass(frozen=True, kw_only=True, eq=False)
class View:
    """Pixels and the objects in them.

    Args:
        image: (H, W, 3) uint8 RGB.
        boxes: (G, 4) float32 `xyxy`; pixel i covers [i, i + 1), so the whole picture is 0, 0, W, H. Boxes may extend
            beyond it.
        ids: (G,) int64; the same object has the same id in every view; an id of 0 or less identifies no object.
    """

    image: NDArray[np.uint8]
    boxes: Boxes
    ids: NDArray[np.int64]

    @property
    def height(self) -> int:
        """Rows of pixels."""
        return int(self.image.shape[0])

    @property
    def width(self) -> int:
        """Columns of pixels."""
        return int(self.image.shape[1])

    def clipped(self) -> Boxes:
        """Boxes clipped to the picture."""
        return clip_boxes(self.boxes, self.height, self.width)

    def keep(self, kept: NDArray[np.bool_]) -> View:
        """The same pixels with some of the objects: `kept` is (G,)."""
        return replace(self, boxes=self.boxes[kept], ids=self.ids[kept])

    def inside(self) -> View:
        """The view without the objects that do not overlap the picture."""
        return self.keep(box_areas(self.clipped()) > 0)


def visible_share(boxes: Boxes, clipped: Boxes) -> NDArray[np.float32]:
    """(G,) part of each box's area that is left after clipping, 0..1."""
    return (box_areas(clipped) / np.maximum(box_areas(boxes), 1e-6)).astype(np.float32)
