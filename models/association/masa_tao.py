"""MASA's rule for TAO and for any video: duplicates out, bi-softmax and cosine, greedy matches (Algorithm 1)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from trackmill.models.association.base import Observations
from trackmill.models.association.greedy import choose_greedily
from trackmill.models.association.memory import MemoryTracker
from trackmill.models.association.similarity import Matrix, bi_softmax, cosines, distance_gate, inverse_norms
from trackmill.models.association.suppression import covered, overlaps
from trackmill.schemas.boxes import LARGEST_COORDINATE
from trackmill.schemas.config import Settings


class MasaTaoSettings(Settings, allow_inf_nan=False):
    """Settings under their official names, with the released defaults.

    Args:
        init_score_thr: a detection without a match begins a track if its score is above this.
        obj_score_thr: a detection continues a track only if its score is above this.
        match_score_thr: and only if its similarity to the track is above this.
        memo_tracklet_frames: a track that was not seen for so many frames is deleted.
        memo_momentum: weight of the newest embedding in the track's.
        distractor_score_thr: a detection with a score below this is dropped if it overlaps a better one
        distractor_nms_thr: by more than this intersection over union.
        with_cats: has no effect; the released code stores it and never reads it.
        max_distance: pixels that a box centre may move, see `distance_gate`; -1 switches the gate off.
        fps: frames per second of the video, used by the gate alone.
    """

    init_score_thr: float = 0.8
    obj_score_thr: float = 0.5
    match_score_thr: float = Field(0.5, ge=0)
    memo_tracklet_frames: int = Field(10, ge=0)
    memo_momentum: float = Field(0.8, ge=0, le=1)
    distractor_score_thr: float = 0.5
    distractor_nms_thr: float = 0.3
    with_cats: bool = True
    max_distance: float = Field(-1, le=LARGEST_COORDINATE)
    fps: float = Field(1, ge=1e-3, le=1e6)

    @field_validator("max_distance")
    @classmethod
    def _off_or_pixels(cls, value: float) -> float:
        if value < 0 and value != -1:
            raise ValueError("pixels, 0 or more, or -1 for no limit")
        return value


class MasaTaoTracker(MemoryTracker):
    """MASA, Algorithm 1, as released (masa_tao_tracker.py): one frame, detections r with scores p, tracks t.

    1. Detections are sorted by score. One with p < `distractor_score_thr` is dropped if it overlaps a better one,
       dropped or not, of any class. So are those with a negative label (released code).
    2. f(r, t) = (s_1 + s_2) / 2: bi-softmax of the dot products and cosine (eq. 2), over all detections that are left
       and all tracks; times the distance gate where `max_distance` is given.
    3. From the best score on: c = max f(r), t = argmax f(r). If c > `match_score_thr` and p > `obj_score_thr`, r
       continues t, and t is taken: f(., t) = 0 for all others. Otherwise, if p > `init_score_thr`, r begins a track.
    4. A track's embedding becomes (1 - m) old + m new, with m = `memo_momentum`. Tracks not seen for
       `memo_tracklet_frames` are deleted, after the association: one that returns after a gap in the frame indices is
       still there. A frame without detections changes nothing.

    The paper has no distance gate, and f(., t) = 0 is not in its listing.

    Args:
        **settings: see `MasaTaoSettings`. TAO's and the open-vocabulary benchmark's: init_score_thr=0.0001,
            obj_score_thr=0.0001. The official demo's: init_score_thr=0.1, obj_score_thr=0.01, max_distance=100, fps=30.
    """

    name: ClassVar[str] = "masa_tao"
    Config: ClassVar[type[Settings]] = MasaTaoSettings
    settings: MasaTaoSettings

    def _associate(self, seen: Observations, frame_index: int) -> NDArray[np.int64]:
        order = self._without_distractors(seen)  # (K,) detections, best first
        scores = seen.scores[order]
        chosen = np.full(len(order), -1, np.int64)
        if len(order) and len(self._memory):
            # Scores descend, so those that may continue a track come first.
            takers = np.count_nonzero(scores > self.settings.obj_score_thr)
            similarity = self._similarity(seen, order, frame_index)
            chosen[:takers], _ = choose_greedily(similarity[:takers], self.settings.match_score_thr, len(self._memory))
        ids = self._memory.record(
            seen, order, chosen, scores > self.settings.init_score_thr, frame_index, self.settings.memo_momentum
        )
        self._memory.forget(frame_index, self.settings.memo_tracklet_frames)
        all_ids = np.full(len(seen.boxes), -1, np.int64)
        all_ids[order] = ids
        return all_ids

    def _without_distractors(self, seen: Observations) -> NDArray[np.int64]:
        """(K,) indices of the detections that are left, best first."""
        order = np.argsort(-seen.scores, kind="stable")
        kept = seen.labels[order] >= 0
        first_low = int(np.count_nonzero(seen.scores >= self.settings.distractor_score_thr))
        if first_low < len(order):
            boxes = seen.boxes[order]
            overlap = overlaps(boxes[first_low:], boxes)
            kept[first_low:] &= ~covered(overlap, self.settings.distractor_nms_thr, first_low)
        return order[kept]

    def _similarity(self, seen: Observations, order: NDArray[np.int64], frame_index: int) -> Matrix:
        """(K, T) float32 between the detections in `order` and all tracks; gated where that may decide."""
        memory = self._memory
        products = seen.embeddings.take(order, axis=0) @ memory.embeddings.T  # (K, D) x (D, T)
        similarity = bi_softmax(products)
        similarity += cosines(products, inverse_norms(seen.squared_norms[order]), memory.inverse_norms)
        similarity *= 0.5
        if self.settings.max_distance != -1:
            # The gate only lowers, so what is not above the threshold without it plays no part with it.
            pairs = np.flatnonzero(similarity > self.settings.match_score_thr)  # (P,)
            rows, columns = np.divmod(pairs, len(memory))
            similarity.reshape(-1)[pairs] *= distance_gate(
                seen.boxes[order[rows]],
                memory.boxes[columns],
                frame_index - memory.last_frames[columns],
                self.settings.max_distance,
                self.settings.fps,
            )
        return similarity
