"""IoU of all pairs of run-length masks in a frame, without decoding them."""

from __future__ import annotations

import numpy as np
from pycocotools import mask as coco

from trackmill.pipeline.evaluation.box_overlaps import Pairs
from trackmill.pipeline.evaluation.tracks import Tracks
from trackmill.pipeline.formats.errors import BadTracks


def mask_pairs(gt: Tracks, predictions: Tracks, num_frames: int) -> Pairs:
    """All overlapping pairs of masks of the same frame.

    Raises:
        BadTracks: ground truth or predictions have no masks, or two masks of a frame differ in size.
    """
    for side, what in ((gt, "ground truth"), (predictions, "predictions")):
        if len(side) and side.masks is None:
            raise BadTracks(f"the {what} holds no masks; compare boxes with --iou box")
    steps = np.arange(num_frames + 1)
    gt_starts, pred_starts = np.searchsorted(gt.frames, steps), np.searchsorted(predictions.frames, steps)
    chunks = []
    for frame in np.flatnonzero((np.diff(gt_starts) > 0) & (np.diff(pred_starts) > 0)):
        first_row, first_column = gt_starts[frame], pred_starts[frame]
        assert gt.masks is not None and predictions.masks is not None
        truth = gt.masks[first_row : gt_starts[frame + 1]].tolist()
        guesses = predictions.masks[first_column : pred_starts[frame + 1]].tolist()
        sizes = {tuple(mask["size"]) for mask in truth + guesses}
        if len(sizes) > 1:
            raise BadTracks(f"frame {frame}: masks of different sizes (height, width): {sorted(sizes)}")
        iou = coco.iou(truth, guesses, [0] * len(guesses))
        row, column = np.nonzero(iou)
        chunks.append((row + first_row, column + first_column, iou[row, column]))
    if not chunks:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)
    rows, columns, values = (np.concatenate(part) for part in zip(*chunks))
    return rows, columns, values
