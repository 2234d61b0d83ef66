"""Annotated objects as far as they are seen: their boxes, cut at the border of the frame.

What is compared with something that was found in the pixels (proposals, detections, chains) is compared with this:
boxes of amodal data sets go round the whole object, also where it leaves the frame.
"""

from __future__ import annotations

import numpy as np

from trackmill.schemas.boxes import Boxes, cut_at_frame, empty_boxes
from trackmill.schemas.sample import SampleRecord


def visible_boxes(record: SampleRecord, frame: int) -> Boxes:
    """(G, 4) float32 `xyxy` of the objects of a frame, in stored pixels; (0, 4) where nothing is known of it."""
    objects = record.frames[frame].objects
    if objects is None:
        return empty_boxes()
    boxes = np.array(objects.boxes, np.float32).reshape(-1, 4)
    return cut_at_frame(boxes, record.stored.height, record.stored.width)
