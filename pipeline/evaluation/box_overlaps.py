"""IoU of boxes, of all pairs in a frame, for many frames at once."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from trackmill.pipeline.evaluation.tracks import Tracks

EPS = float(np.finfo(np.float64).eps)
_CHUNK_PAIRS = 1 << 15
"""Pairs compared at a time, so that the columns of a chunk stay in the processor's cache."""

Pairs = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]
"""Row of the ground truth, row of the prediction, IoU > 0; each (K,), ascending by row, then column."""


def box_pairs(gt: Tracks, predictions: Tracks, num_frames: int) -> Pairs:
    """All overlapping pairs of boxes of the same frame; the arithmetic is TrackEval's, to the last bit.

    Memory grows with the number of overlapping pairs, not of all pairs.
    """
    steps = np.arange(num_frames + 1)
    gt_starts, pred_starts = np.searchsorted(gt.frames, steps), np.searchsorted(predictions.frames, steps)
    chunks = [
        _touching(gt, predictions, gt_starts, pred_starts, begin, end)
        for begin, end in _chunks(np.diff(gt_starts), np.diff(pred_starts))
    ]
    rows, columns = concatenate_pairs(chunks)
    iou = box_iou(gt.boxes[rows], predictions.boxes[columns])
    positive = iou > 0
    return rows[positive], columns[positive], iou[positive]


def box_iou(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """IoU of box i of `a` with box i of `b`, both (N, 4) float64 `xyxy`: (N,); 0 where a box has no area."""
    width = np.minimum(a[:, 2], b[:, 2]) - np.maximum(a[:, 0], b[:, 0])
    height = np.minimum(a[:, 3], b[:, 3]) - np.maximum(a[:, 1], b[:, 1])
    shared = np.maximum(width, 0) * np.maximum(height, 0)
    area_a = (a[:, 2] - a[:, 0]) * (a[:, 3] - a[:, 1])
    area_b = (b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1])
    union = area_a + area_b - shared
    # The official tools treat areas up to the machine epsilon as empty.
    shared[(area_a <= EPS) | (area_b <= EPS) | (union <= EPS)] = 0
    union[union <= EPS] = 1
    iou: NDArray[np.float64] = shared / union
    return iou


def concatenate_pairs(
    chunks: list[tuple[NDArray[np.int64], NDArray[np.int64]]],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Concatenate chunks of (rows, columns)."""
    if not chunks:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    return np.concatenate([rows for rows, _ in chunks]), np.concatenate([columns for _, columns in chunks])


def _chunks(num_gt: NDArray[np.int64], num_pred: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Ranges of frames whose matrices, padded to the largest, hold at most `_CHUNK_PAIRS` cells (or one frame)."""
    begin = rows = columns = 0
    for frame, (gt, pred) in enumerate(zip(num_gt.tolist(), num_pred.tolist())):
        rows, columns = max(rows, gt), max(columns, pred)
        if frame > begin and (frame - begin + 1) * rows * columns > _CHUNK_PAIRS:
            yield begin, frame
            begin, rows, columns = frame, gt, pred
    if begin < len(num_gt):
        yield begin, len(num_gt)


def _touching(
    gt: Tracks,
    predictions: Tracks,
    gt_starts: NDArray[np.int64],
    pred_starts: NDArray[np.int64],
    begin: int,
    end: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and columns of the pairs in frames `begin` to `end` whose boxes share more than an edge."""
    x0, y0, x1, y1 = _padded(gt, gt_starts[begin : end + 1])
    u0, v0, u1, v1 = _padded(predictions, pred_starts[begin : end + 1])
    # (frames, rows, 1) against (frames, 1, columns); padding is NaN, so every comparison with it is false.
    touching = np.minimum(x1[:, :, None], u1[:, None, :]) > np.maximum(x0[:, :, None], u0[:, None, :])
    touching &= np.minimum(y1[:, :, None], v1[:, None, :]) > np.maximum(y0[:, :, None], v0[:, None, :])
    frame, row, column = np.nonzero(touching)
    return gt_starts[begin:end][frame] + row, pred_starts[begin:end][frame] + column


def _padded(tracks: Tracks, starts: NDArray[np.int64]) -> tuple[NDArray[np.float64], ...]:
    """The four coordinates of the boxes of some frames, each (frames, most boxes in a frame), padded with NaN."""
    counts = np.diff(starts)
    frame = np.repeat(np.arange(len(counts)), counts)
    place = np.arange(starts[0], starts[-1]) - starts[frame]
    columns = np.full((4, len(counts), int(counts.max(initial=0))), np.nan)
    columns[:, frame, place] = tracks.boxes[starts[0] : starts[-1]].T
    return tuple(columns)
