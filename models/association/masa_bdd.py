"""MASA's rule for BDD100K: suppression by score, bi-softmax alone, and backdrops that hold matches back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from trackmill.models.association.base import Observations
from trackmill.models.association.greedy import choose_greedily
from trackmill.models.association.memory import MemoryTracker, TrackMemory
from trackmill.models.association.similarity import Matrix, bi_softmax, cosines, inverse_norms, softmax
from trackmill.models.association.suppression import covered, overlaps
from trackmill.schemas.config import Settings


class MasaBddSettings(Settings, allow_inf_nan=False):
    """Settings under their official names, with the released defaults.

    Args:
        init_score_thr: a detection without a match begins a track if its score is above this.
        obj_score_thr: a detection continues a track only if its score is above this.
        match_score_thr: and only if its similarity to the track is above this.
        memo_tracklet_frames: a track that was not seen for so many frames is deleted.
        memo_backdrop_frames: frames with detections whose backdrops are remembered.
        memo_momentum: weight of the newest embedding in the track's.
        nms_conf_thr: a detection with too low a score to continue its match is taken for a duplicate of it if the
            similarity is above this too: it neither begins a track nor becomes a backdrop.
        nms_backdrop_iou_thr: overlap with a better box above which a detection with a score below `obj_score_thr` is
            dropped, and one without a track does not become a backdrop.
        nms_class_iou_thr: overlap with a better box above which any other detection is dropped.
        with_cats: detections match only tracks and backdrops of their own label.
        match_metric: "bisoftmax", "softmax" (over tracks and backdrops) or "cosine".
    """

    init_score_thr: float = 0.8
    obj_score_thr: float = 0.5
    match_score_thr: float = Field(0.5, ge=0)
    memo_tracklet_frames: int = Field(10, ge=0)
    memo_backdrop_frames: int = Field(1, ge=0)
    memo_momentum: float = Field(0.8, ge=0, le=1)
    nms_conf_thr: float = 0.5
    nms_backdrop_iou_thr: float = 0.3
    nms_class_iou_thr: float = 0.7
    with_cats: bool = False
    match_metric: Literal["bisoftmax", "softmax", "cosine"] = "bisoftmax"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Backdrops:
    """Detections of one frame that belong to no track: (B, D) embeddings, (B,) inverse norms, (B,) labels."""

    embeddings: NDArray[np.float32]
    inverse_norms: NDArray[np.float32]
    labels: NDArray[np.int64]


class MasaBddTracker(MemoryTracker):
    """MASA's rule for BDD100K as released (masa_bdd_tracker.py); in the paper's terms, Algorithm 1 with s = s_1.

    1. Detections are sorted by score. One is dropped if it overlaps a better one, dropped or not, of any class: by more
       than `nms_backdrop_iou_thr` if its score is below `obj_score_thr`, else by more than `nms_class_iou_thr`.
    2. f(r, t) is the bi-softmax (or another `match_metric`) over all detections that are left and all tracks and
       backdrops t; 0 where labels differ, if `with_cats`. Without tracks nothing is matched, whatever backdrops say.
    3. From the best score on: c = max f(r), t = argmax f(r), if c > `match_score_thr`. Where t is a backdrop, r
       continues nothing. Else, with a score above `obj_score_thr`, r continues t, and f(., t) = 0 for all others;
       with a lower score and c > `nms_conf_thr`, r is a duplicate and has no part in what follows.
    4. Every other r without a track begins one if its score is above `init_score_thr`. What is left becomes a
       backdrop, unless it overlaps a better box of step 1's survivors by more than `nms_backdrop_iou_thr`.
    5. Embeddings and forgetting are as in `MasaTaoTracker`. A frame without detections changes nothing: backdrops
       stay the last ones.

    The velocities of the released code are computed there and never read; there are none here.

    Args:
        **settings: see `MasaBddSettings`. BDD100K's MOT and MOTS benchmarks': init_score_thr=0.5, obj_score_thr=0.3,
            match_score_thr=0.6.
    """

    name: ClassVar[str] = "masa_bdd"
    Config: ClassVar[type[Settings]] = MasaBddSettings
    settings: MasaBddSettings

    def _forget(self) -> None:
        super()._forget()
        self._backdrops: list[Backdrops] = []  # newest first

    def _associate(self, seen: Observations, frame_index: int) -> NDArray[np.int64]:
        order = np.argsort(-seen.scores, kind="stable")
        boxes = seen.boxes[order]
        overlap = overlaps(boxes, boxes)
        kept = np.flatnonzero(~covered(overlap, self._allowed_overlaps(seen.scores[order])))
        order = order[kept]
        scores = seen.scores[order]

        chosen = np.full(len(order), -1, np.int64)
        duplicate = np.zeros(len(order), bool)
        if len(self._memory):
            chosen, duplicate = self._match(self._similarity(seen, order), scores)
        may_start = (scores > self.settings.init_score_thr) & ~duplicate
        ids = self._memory.record(seen, order, chosen, may_start, frame_index, self.settings.memo_momentum)
        left = np.flatnonzero((ids < 0) & ~duplicate)
        if len(left):
            among_kept = overlap.take(kept, axis=0).take(kept, axis=1)
            left = left[~covered(among_kept, self.settings.nms_backdrop_iou_thr)[left]]
        self._remember_backdrops(seen, order[left])
        self._memory.forget(frame_index, self.settings.memo_tracklet_frames)
        all_ids = np.full(len(seen.boxes), -1, np.int64)
        all_ids[order] = ids
        return all_ids

    def _allowed_overlaps(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N, 1) with a better box, before a detection is dropped."""
        low = scores < self.settings.obj_score_thr
        thresholds = np.array([self.settings.nms_class_iou_thr, self.settings.nms_backdrop_iou_thr], np.float32)
        return thresholds[low.astype(np.intp)][:, None]

    def _similarity(self, seen: Observations, order: NDArray[np.int64]) -> Matrix:
        """(K, T + B) float32 between the detections in `order` and all tracks, then all backdrops, newest first."""
        embeddings = seen.embeddings.take(order, axis=0)
        memories: list[TrackMemory | Backdrops] = [self._memory, *self._backdrops]
        products = np.concatenate([embeddings @ memory.embeddings.T for memory in memories], axis=1)
        if self.settings.match_metric == "bisoftmax":
            similarity = bi_softmax(products)
        elif self.settings.match_metric == "softmax":
            similarity = softmax(products, axis=1)
        else:
            column_norms = np.concatenate([memory.inverse_norms for memory in memories])
            similarity = cosines(products, inverse_norms(seen.squared_norms[order]), column_norms)
        if self.settings.with_cats:
            labels = np.concatenate([memory.labels for memory in memories])
            similarity *= seen.labels[order][:, None] == labels
        return similarity

    def _match(self, similarity: Matrix, scores: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Step 3: (K,) row of the track that each detection continues or -1, and (K,) whether it is a duplicate."""
        chosen = np.full(len(scores), -1, np.int64)
        duplicate = np.zeros(len(scores), bool)
        # Scores descend: those that may continue a track come first, and the rest finds all taken that will be.
        takers = np.count_nonzero(scores > self.settings.obj_score_thr)
        num_tracks = len(self._memory)
        chosen[:takers], free = choose_greedily(similarity[:takers], self.settings.match_score_thr, num_tracks)
        low = similarity[takers:] * free  # (K - takers, T + B)
        best, confidence = low.argmax(axis=1), low.max(axis=1)
        needed = np.float32(max(self.settings.match_score_thr, self.settings.nms_conf_thr))
        duplicate[takers:] = (best < num_tracks) & (confidence > needed)
        return chosen, duplicate

    def _remember_backdrops(self, seen: Observations, picked: NDArray[np.int64]) -> None:
        newest = Backdrops(
            embeddings=seen.embeddings[picked],
            inverse_norms=inverse_norms(seen.squared_norms[picked]),
            labels=seen.labels[picked],
        )
        self._backdrops = [newest, *self._backdrops][: self.settings.memo_backdrop_frames]
