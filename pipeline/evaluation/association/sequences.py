"""One sequence of the association benchmark: boxes with identities, and optionally access to its pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from trackmill.pipeline.evaluation.overlaps import Overlaps, find_overlaps
from trackmill.pipeline.evaluation.tracks import first_duplicate, make_tracks
from trackmill.pipeline.formats.errors import BadTracks

FrameReader = Callable[[Sequence[int]], Iterable[NDArray[np.uint8]]]
"""Given ascending frame numbers, yields their pictures in that order, each (H, W, 3) uint8 RGB."""


@dataclass(frozen=True, kw_only=True, eq=False)
class BoxSequence:
    """Objects of one sequence, ascending by frame.

    Make one with `box_sequence`, which sorts and checks.

    Args:
        name: name of the sequence.
        frames: (N,) int64 frame number.
        ids: (N,) int64 identity, unique within a frame.
        boxes: (N, 4) float64 `xyxy` in pixels.
        pictures: pixels by frame number; None where no embedding uses pixels.
    """

    name: str
    frames: NDArray[np.int64]
    ids: NDArray[np.int64]
    boxes: NDArray[np.float64]
    pictures: FrameReader | Mapping[int, NDArray[np.uint8]] | None = None

    def __len__(self) -> int:
        return len(self.frames)

    def fed_frames(self) -> list[int]:
        """Numbers of the frames that an embedding gets which remembers earlier ones: as a tracker would.

        All that there are pictures of, with boxes or without, up to the last one with boxes. Of a reader that does not
        know which it has (no method `up_to`), those with boxes.
        """
        shown = np.unique(self.frames).tolist()
        if not shown:
            return []
        if isinstance(self.pictures, Mapping):
            return sorted({*shown, *(number for number in self.pictures if number <= shown[-1])})
        known = getattr(self.pictures, "up_to", None)
        return shown if known is None else sorted({*shown, *known(shown[-1])})

    @cached_property
    def overlaps(self) -> Overlaps:
        """The overlaps of the boxes with themselves: all that HOTA needs when the boxes are given."""
        # Frames are renumbered without gaps: frames without objects change no score, and numbers may be huge.
        shown, steps = np.unique(self.frames, return_inverse=True)
        boxes = make_tracks(steps, self.ids, self.boxes)
        return find_overlaps(boxes, boxes, len(shown))

    def linked(self, tracks: NDArray[np.int64], stride: int) -> Overlaps:
        """The boxes as ground truth and as predictions, with separate identities in every phase of `stride`.

        Phases share no frame, so one `Overlaps` holds them all; pooling the counts of each phase would give the same
        sums.

        Args:
            tracks: (N,) predicted identity of each box, different in every phase.
            stride: frames from one processed frame to the next.
        """
        base = self.overlaps
        gt_names, gt_ids = np.unique(base.gt_ids * stride + self.frames % stride, return_inverse=True)
        pred_names, pred_ids = np.unique(tracks, return_inverse=True)
        return replace(base, gt_ids=gt_ids, gt_names=gt_names, pred_ids=pred_ids, pred_names=pred_names)


def box_sequence(
    name: str,
    frames: Sequence[int] | NDArray[np.integer],
    ids: Sequence[int] | NDArray[np.integer],
    boxes: Sequence[Sequence[float]] | NDArray[np.floating],
    pictures: FrameReader | Mapping[int, NDArray[np.uint8]] | None = None,
) -> BoxSequence:
    """Sort by frame (stably) and check.

    Args:
        name: name of the sequence.
        frames, ids: (N,) whole numbers; frames are not negative.
        boxes: (N, 4) `xyxy` in pixels.
        pictures: see `BoxSequence`.

    Raises:
        BadTracks: columns differ in length, a box is not finite or has a negative side, or a frame has an id twice.
    """
    where = f"sequence {name}"
    columns = [np.asarray(frames), np.asarray(ids)]
    for column, what in zip(columns, ("frames", "ids")):
        if column.ndim != 1 or (len(column) and column.dtype.kind not in "iu"):
            raise BadTracks(
                f"{where}: {what} should be one whole number for each box, found {column.dtype} {column.shape}"
            )
    corners = np.asarray(boxes, np.float64)
    if corners.size == 0:
        corners = corners.reshape(0, 4)
    if corners.shape != (len(columns[0]), 4) or len(columns[0]) != len(columns[1]):
        raise BadTracks(
            f"{where}: {len(columns[0])} frames, {len(columns[1])} ids and boxes {corners.shape}; give one frame, one "
            "id and one box (x0, y0, x1, y1) for each object"
        )
    tracks = make_tracks(columns[0], columns[1], corners)
    bad = ~np.isfinite(tracks.boxes).all(axis=1) | (tracks.boxes[:, 2:] < tracks.boxes[:, :2]).any(axis=1)
    if bad.any():
        row = int(np.argmax(bad))
        raise BadTracks(
            f"{where}: frame {tracks.frames[row]}, id {tracks.ids[row]}: the box {tracks.boxes[row].tolist()} is not "
            "finite or has a negative side"
        )
    if len(tracks) and tracks.frames[0] < 0:
        raise BadTracks(f"{where}: frame {tracks.frames[0]}: frame numbers are not negative")
    twice = first_duplicate(tracks)
    if twice is not None:
        raise BadTracks(f"{where}: frame {tracks.frames[twice[0]]}: id {tracks.ids[twice[0]]} stands there twice")
    return BoxSequence(name=name, frames=tracks.frames, ids=tracks.ids, boxes=tracks.boxes, pictures=pictures)
