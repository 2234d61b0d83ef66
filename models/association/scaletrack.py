"""ScaleTrack's rule: suppression by score, cosine with each track, and the best assignment of all pairs at once."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from trackmill.models.association.base import Observations
from trackmill.models.association.memory import MemoryTracker
from trackmill.models.association.similarity import inverse_norms
from trackmill.models.association.suppression import overlaps
from trackmill.schemas.boxes import Boxes
from trackmill.schemas.config import Settings
from trackmill.schemas.detections import Detections


class ScaleTrackSettings(Settings, allow_inf_nan=False):
    """Defaults: the paper's (section 3.5 and appendix A.1), where it gives them.

    Args:
        min_score: detections with a lower score take no part.
        nms_iou: of two boxes of any classes that overlap more, the one with the higher score stays. The paper says 0.4
            and not whether classes count.
        max_detections: the best so many of a frame take part.
        match_threshold: a detection continues a track if their cosine is this or more.
        memory_frames: a track continues up to so many frames after it was last seen. The paper says nothing; this is
            MASA's.
        momentum: weight of the newest embedding in the track's; the old one has 1 - `momentum`.
    """

    min_score: float = Field(0.3, description="Detections with a lower score take no part.")
    nms_iou: float = Field(0.4, ge=0, le=1, description="Of two boxes that overlap more, the better one stays.")
    max_detections: int = Field(100, ge=1, description="The best so many of a frame take part.")
    match_threshold: float = Field(0.5, ge=-1, le=1, description="Cosine from which a detection continues a track.")
    memory_frames: int = Field(10, ge=0, description="How long after it was last seen a track may continue.")
    momentum: float = Field(0.5, ge=0, le=1, description="Weight of the newest embedding in the track's.")


class ScaleTrackTracker(MemoryTracker):
    """The rule of ScaleTrack (Li et al., section 3.5), which knows no motion and no classes.

    1. Detections with a score of at least `min_score`, after class-agnostic NMS, the best `max_detections` of them; of
       equal scores the first goes before. All others belong to no track.
    2. S(r, t) is the cosine of detection and track. The assignment of the least total 1 - S over all pairs is found
       (Hungarian algorithm); of its pairs those with S of at least `match_threshold` are kept.
    3. A continued track has e = normalise((1 - m) e + m f), f of unit length and m the `momentum`. Every other
       detection begins a track.

    Args:
        **settings: see `ScaleTrackSettings`.
    """

    name: ClassVar[str] = "scaletrack"
    Config: ClassVar[type[Settings]] = ScaleTrackSettings
    settings: ScaleTrackSettings

    def wanted(self, detections: Detections) -> NDArray[np.int64]:
        """See `Tracker.wanted`: what is left after step 1, the best first."""
        return self._survivors(detections.boxes, detections.scores)

    def _associate(self, seen: Observations, frame_index: int) -> NDArray[np.int64]:
        memory = self._memory
        # The limit counts from the frame at hand, also where frames are left out.
        memory.forget(frame_index, self.settings.memory_frames + 1)
        order = self._survivors(seen.boxes, seen.scores)
        lengths = inverse_norms(seen.squared_norms)
        unit = Observations(
            boxes=seen.boxes,
            scores=seen.scores,
            labels=seen.labels,
            embeddings=seen.embeddings * lengths[:, None],
            squared_norms=seen.squared_norms * lengths * lengths,
        )
        chosen = np.full(len(order), -1, np.int64)
        if len(memory) and len(order):
            similarity = unit.embeddings[order] @ memory.embeddings.T  # (K, T); tracks have unit length
            from scipy.optimize import linear_sum_assignment  # slow to import: --help names this rule too

            rows, columns = linear_sum_assignment(1 - similarity.astype(np.float64))
            kept = similarity[rows, columns] >= np.float32(self.settings.match_threshold)
            chosen[rows[kept]] = columns[kept]
        ids = memory.record(unit, order, chosen, np.ones(len(order), bool), frame_index, self.settings.momentum)
        continued = chosen[chosen >= 0]
        memory.embeddings[continued] *= memory.inverse_norms[continued][:, None]
        memory.forget(frame_index, self.settings.memory_frames)
        all_ids = np.full(len(seen.boxes), -1, np.int64)
        all_ids[order] = ids
        return all_ids

    def _survivors(self, boxes: Boxes, scores: NDArray[np.float32]) -> NDArray[np.int64]:
        """(K,) indices of the detections that take part, best first."""
        order = np.argsort(-scores, kind="stable")
        order = order[scores[order] >= np.float32(self.settings.min_score)]
        kept: list[int] = []
        overlap = overlaps(boxes[order], boxes[order])
        free = np.ones(len(order), bool)
        for place in range(len(order)):
            if free[place]:
                kept.append(place)
                if len(kept) == self.settings.max_detections:
                    break
                free &= overlap[place] <= self.settings.nms_iou
        return order[kept]
