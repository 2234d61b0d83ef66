"""Tracks of one video as columns: one row for each object in each frame, ground truth or predictions alike.

Everything is float64: the official tools compare overlaps with thresholds in double precision, and so must we to
count the same matches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tracks:
    """Rows of one video, ascending by frame; within a frame in the order of the file, which decides ties.

    Args:
        frames: (N,) int64, time step from 0.
        ids: (N,) int64, identity; constant over the video, unique within a frame unless `ignored`.
        boxes: (N, 4) float64, `xyxy`, absolute pixels.
        labels: (N,) int64, category id.
        scores: (N,) float64, confidence; 1 in ground truth.
        ignored: (N,) bool, whether the row is a region to ignore, not an object; False in predictions.
        masks: (N,) object array of COCO RLE `{"size": [h, w], "counts": bytes}`, or None where there are only boxes.
    """

    frames: NDArray[np.int64]
    ids: NDArray[np.int64]
    boxes: NDArray[np.float64]
    labels: NDArray[np.int64]
    scores: NDArray[np.float64]
    ignored: NDArray[np.bool_]
    masks: NDArray[Any] | None = None

    def __len__(self) -> int:
        return len(self.frames)

    def select(self, keep: NDArray[Any]) -> Tracks:
        """The rows of a boolean mask (N,) or of ascending row numbers."""
        return Tracks(
            frames=self.frames[keep],
            ids=self.ids[keep],
            boxes=self.boxes[keep],
            labels=self.labels[keep],
            scores=self.scores[keep],
            ignored=self.ignored[keep],
            masks=None if self.masks is None else self.masks[keep],
        )


def make_tracks(
    frames: Sequence[int] | NDArray[Any],
    ids: Sequence[int] | NDArray[Any],
    boxes: Sequence[Sequence[float]] | NDArray[Any],
    labels: Sequence[int] | NDArray[Any] | None = None,
    scores: Sequence[float] | NDArray[Any] | None = None,
    ignored: Sequence[bool] | NDArray[Any] | None = None,
    masks: Sequence[Any] | NDArray[Any] | None = None,
) -> Tracks:
    """Sort columns stably by frame; labels and scores that are None become 1. Nothing is checked."""
    frames = np.asarray(frames, np.int64).reshape(-1)
    count = len(frames)
    columns = Tracks(
        frames=frames,
        ids=np.asarray(ids, np.int64).reshape(-1),
        boxes=np.asarray(boxes, np.float64).reshape(-1, 4),
        labels=np.ones(count, np.int64) if labels is None else np.asarray(labels, np.int64).reshape(-1),
        scores=np.ones(count) if scores is None else np.asarray(scores, np.float64).reshape(-1),
        ignored=np.zeros(count, bool) if ignored is None else np.asarray(ignored, bool).reshape(-1),
        masks=None if masks is None else _objects(masks),
    )
    ascending = bool((frames[1:] >= frames[:-1]).all())
    return columns if ascending else columns.select(np.argsort(frames, kind="stable"))


def no_tracks() -> Tracks:
    """No rows at all."""
    return make_tracks([], [], np.zeros((0, 4)))


def first_duplicate(tracks: Tracks) -> tuple[int, int] | None:
    """Rows of the first two objects that share an id within a frame, ignored regions aside; None where all differ."""
    rows = np.flatnonzero(~tracks.ignored)
    order = rows[np.lexsort((tracks.ids[rows], tracks.frames[rows]))]
    same = (tracks.frames[order][1:] == tracks.frames[order][:-1]) & (tracks.ids[order][1:] == tracks.ids[order][:-1])
    where = np.flatnonzero(same)
    return None if where.size == 0 else (int(order[where[0]]), int(order[where[0] + 1]))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Video:
    """Ground truth and predictions of one video.

    Args:
        name: name of the sequence, as in the benchmark.
        num_frames: number of time steps; every entry of `frames` lies below it.
        gt, predictions: see `Tracks`.
        frame_names: one picture name a time step, relative to the root given as `--pictures`; empty if unknown.
    """

    name: str
    num_frames: int
    gt: Tracks
    predictions: Tracks
    frame_names: tuple[str, ...] = ()


def _objects(masks: Sequence[Any] | NDArray[Any]) -> NDArray[Any]:
    column = np.empty(len(masks), object)
    column[:] = list(masks)
    return column
