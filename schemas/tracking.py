"""One frame of a video that is tracked, and the objects with identities that a tracker gives for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trackmill.schemas.arrays import whole_array
from trackmill.schemas.detections import Detections
from trackmill.schemas.masks import CroppedMask

NO_IDENTITY = -1
"""The id of a detection that belongs to no track."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SourceFrame:
    """One decoded frame.

    Args:
        index: its place, from 0.
        number: what MOTChallenge files call it: the number in its file's name in a MOT sequence, else `index + 1`.
        time_s: since the first frame.
        image: (H, W, 3) uint8 RGB, upright, at its full size.
        file_name: of its picture; for a frame of a video the video's name and its place.
    """

    index: int
    number: int
    time_s: float
    image: NDArray[np.uint8]
    file_name: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrackedObjects:
    """M objects of one frame, best score first; make it with `TrackedObjects.of`.

    Args:
        ids: (M,) int64 identities, constant over the video, each once in a frame.
        objects: their boxes, scores, labels and masks, in pixels of the frame.
        indices: (M,) int64, which of the frame's detections each one is.
        num_detections: N, how many detections the frame had, those without an identity among them.
    """

    ids: NDArray[np.int64]
    objects: Detections
    indices: NDArray[np.int64]
    num_detections: int

    def __len__(self) -> int:
        return len(self.ids)

    def with_masks(self, masks: Sequence[CroppedMask | None]) -> TrackedObjects:
        """The same objects with these M masks instead of their own."""
        return replace(self, objects=self.objects.with_masks(masks))

    @classmethod
    def of(cls, detections: Detections, ids: Any) -> TrackedObjects:
        """The detections that have an identity, best score first; among equal scores the earlier one.

        Args:
            detections: N of one frame.
            ids: (N,) the identity of each, `NO_IDENTITY` or another negative number for none.

        Raises:
            ValueError: another number of ids than of detections, or an identity twice in the frame.
        """
        given = whole_array(ids, "ids") if len(detections) else np.zeros(0, np.int64)
        if given.shape != (len(detections),):
            raise ValueError(f"ids: should be of shape ({len(detections)},) like the detections, found {given.shape}")
        order = np.argsort(-detections.scores, kind="stable")
        indices = order[given[order] >= 0]
        kept = given[indices]
        values, counts = np.unique(kept, return_counts=True)
        if len(values) < len(kept):
            raise ValueError(f"ids: {values[counts > 1][0]} stands twice in one frame; an identity is one object")
        return cls(ids=kept, objects=detections.select(indices), indices=indices, num_detections=len(detections))
