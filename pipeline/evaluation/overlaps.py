"""All pairs of a ground-truth and a predicted object of one frame with IoU > 0: all that metrics need of the geometry.

Most pairs do not overlap, and those never match (except at TETA's threshold 0, see `teta.py`), so they are not kept:
3,300 frames with 200 x 200 objects would take a gigabyte.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from trackmill.pipeline.evaluation.box_overlaps import box_pairs
from trackmill.pipeline.evaluation.mask_overlaps import mask_pairs
from trackmill.pipeline.evaluation.tracks import Tracks

Iou = Literal["box", "mask"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Overlaps:
    """Objects of one video and the pairs of them that overlap.

    Args:
        num_frames: time steps T of the video.
        gt_frames, gt_ids: (G,) int64 frame (ascending) and id of each ground-truth object; ids count from 0 without
            gaps.
        pred_frames, pred_ids: (P,) the same of each prediction.
        gt_names, pred_names: original track id of each id.
        pair_gt, pair_pred: (K,) rows of the two objects of each pair, ascending by frame, then row, then column.
        pair_iou: (K,) float64 in (0, 1].
        column_major: whether the official tool stores a frame's IoU matrix column by column, which decides how its sums
            are rounded (see `row_sums.py`). It does for masks, and where it cuts out the rows and columns of a class.
    """

    num_frames: int
    gt_frames: NDArray[np.int64]
    gt_ids: NDArray[np.int64]
    pred_frames: NDArray[np.int64]
    pred_ids: NDArray[np.int64]
    gt_names: NDArray[np.int64]
    pred_names: NDArray[np.int64]
    pair_gt: NDArray[np.int64]
    pair_pred: NDArray[np.int64]
    pair_iou: NDArray[np.float64]
    column_major: bool = False

    @property
    def num_gt(self) -> int:
        """Ground-truth objects over all frames."""
        return len(self.gt_frames)

    @property
    def num_pred(self) -> int:
        """Predicted objects over all frames."""
        return len(self.pred_frames)

    @property
    def num_gt_ids(self) -> int:
        """Ground-truth identities."""
        return len(self.gt_names)

    @property
    def num_pred_ids(self) -> int:
        """Predicted identities."""
        return len(self.pred_names)

    @cached_property
    def gt_starts(self) -> NDArray[np.int64]:
        """(T + 1,) row where each frame's ground truth begins."""
        return np.searchsorted(self.gt_frames, np.arange(self.num_frames + 1))

    @cached_property
    def pred_starts(self) -> NDArray[np.int64]:
        """(T + 1,) row where each frame's predictions begin."""
        return np.searchsorted(self.pred_frames, np.arange(self.num_frames + 1))

    @cached_property
    def pair_frames(self) -> NDArray[np.int64]:
        """(K,) frame of each pair."""
        return self.gt_frames[self.pair_gt]

    @cached_property
    def pair_starts(self) -> NDArray[np.int64]:
        """(T + 1,) index of each frame's first pair."""
        return np.searchsorted(self.pair_frames, np.arange(self.num_frames + 1))

    def select(self, keep_gt: NDArray[np.bool_], keep_pred: NDArray[np.bool_]) -> Overlaps:
        """Only the objects that two boolean masks (G,) and (P,) keep; ids are renumbered."""
        keep = keep_gt[self.pair_gt] & keep_pred[self.pair_pred]
        gt_names, gt_ids = np.unique(self.gt_ids[keep_gt], return_inverse=True)
        pred_names, pred_ids = np.unique(self.pred_ids[keep_pred], return_inverse=True)
        return Overlaps(
            num_frames=self.num_frames,
            gt_frames=self.gt_frames[keep_gt],
            gt_ids=gt_ids,
            pred_frames=self.pred_frames[keep_pred],
            pred_ids=pred_ids,
            gt_names=self.gt_names[gt_names],
            pred_names=self.pred_names[pred_names],
            pair_gt=(np.cumsum(keep_gt) - 1)[self.pair_gt[keep]],
            pair_pred=(np.cumsum(keep_pred) - 1)[self.pair_pred[keep]],
            pair_iou=self.pair_iou[keep],
            column_major=self.column_major,
        )

    def of_class(self, keep_gt: NDArray[np.bool_], keep_pred: NDArray[np.bool_]) -> Overlaps:
        """`select` with the memory order that the official tools have after they cut out a class."""
        return replace(self.select(keep_gt, keep_pred), column_major=True)


def find_overlaps(gt: Tracks, predictions: Tracks, num_frames: int, iou: Iou = "box") -> Overlaps:
    """Compare every ground-truth object with every prediction of its frame.

    Args:
        gt, predictions: rows ascending by frame, all below `num_frames`; ignored rows are compared like others.
        num_frames: time steps.
        iou: compare boxes, or masks (both sides then need `masks`).
    """
    pairs = mask_pairs if iou == "mask" else box_pairs
    pair_gt, pair_pred, pair_iou = pairs(gt, predictions, num_frames)
    gt_names, gt_ids = np.unique(gt.ids, return_inverse=True)
    pred_names, pred_ids = np.unique(predictions.ids, return_inverse=True)
    return Overlaps(
        num_frames=num_frames,
        gt_frames=gt.frames,
        gt_ids=gt_ids,
        pred_frames=predictions.frames,
        pred_ids=pred_ids,
        gt_names=gt_names,
        pred_names=pred_names,
        pair_gt=pair_gt,
        pair_pred=pair_pred,
        pair_iou=pair_iou,
        column_major=iou == "mask",
    )
