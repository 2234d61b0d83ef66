"""What tracking gives for one frame: detections with identities."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trackmill.models.association.base import Tracked
from trackmill.schemas.detections import Detections


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrackedObjects:
    """M objects of one frame.

    Args:
        ids: (M,) int64 identities, constant over the video, each once in a frame.
        objects: their boxes, scores, labels and masks, in pixels of the frame.
        indices: (M,) int64, which of the frame's detections each one is.
    """

    ids: NDArray[np.int64]
    objects: Detections
    indices: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.ids)


def with_identities(found: Detections, tracked: Tracked) -> TrackedObjects:
    """The detections that a tracker chose, with what the tracker does not carry: names and masks."""
    return TrackedObjects(ids=tracked.ids, objects=found.select(tracked.indices), indices=tracked.indices)
