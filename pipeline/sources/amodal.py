"""Boxes that go round the whole object, also where it leaves its picture (`read.amodal`)."""

from __future__ import annotations

import numpy as np

from trackmill.pipeline.media.errors import BadItem
from trackmill.schemas.boxes import MAX_REACH, Boxes


def check_reach(boxes: Boxes, where: str) -> None:
    """Refuse boxes that end too far outside of any picture to be meant.

    Args:
        boxes: (N, 4) `xyxy` as annotated.
        where: file and place, for the error.

    Raises:
        BadItem: a coordinate lies beyond `MAX_REACH`, or is no number.
    """
    far = ~(np.abs(boxes) <= MAX_REACH).all(axis=1)
    if far.any():
        box = boxes[int(np.flatnonzero(far)[0])].tolist()
        raise BadItem(
            f"{where}: box {[round(side, 2) for side in box]} (x0, y0, x1, y1) reaches beyond {MAX_REACH:,.0f} pixels; "
            "mend it, or mine without read.amodal, which cuts boxes at the border of the picture"
        )
