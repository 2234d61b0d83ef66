"""Boxes of a clip's frames after the augmentation: objects that show enough, and negatives that are none of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from trackmill.pipeline.loader.clips.example import NEGATIVE
from trackmill.pipeline.loader.clips.jitter import Jitter, in_view
from trackmill.pipeline.loader.clips.settings import ClipSettings
from trackmill.pipeline.loader.contract import StoredSample
from trackmill.pipeline.loader.negatives import NegativeUse, negatives_of
from trackmill.schemas.boxes import Boxes, cut_at_frame
from trackmill.schemas.negatives import overlapping_objects


@dataclass(frozen=True, kw_only=True, eq=False)
class FrameBoxes:
    """What an example has of a frame, and what it must not take for a negative.

    Args:
        boxes: (N, 4) float32 `xyxy` in pixels of the square.
        ids: (N,) int64.
        stored: (K, 4) all objects of the frame, whether they show or not, in stored pixels, cut at the frame's border.
        placed: (K, 4) the same in pixels of the square, cut at its border, too, if boxes are.
    """

    boxes: Boxes
    ids: NDArray[np.int64]
    stored: Boxes
    placed: Boxes


def objects_in_view(
    stored: Boxes, ids: NDArray[np.int64], jitter: Jitter, sample: StoredSample, settings: ClipSettings
) -> FrameBoxes:
    """The identified objects of a frame that show enough, by `settings`.

    Args:
        stored: (K, 4) all objects of the frame, in its pixels.
        ids: (K,) who they are, -1 where nobody knows.
        jitter: where the frame goes.
        sample: whose frame it is.
        settings: see `ClipSettings`.
    """
    inside = cut_at_frame(stored, sample.height, sample.width)
    placed, enough = in_view(jitter.boxes(inside, sample.height, sample.width), jitter.size, settings)
    kept = enough & (ids >= 0)
    boxes = placed if settings.clip else jitter.boxes(stored, sample.height, sample.width)
    return FrameBoxes(boxes=boxes[kept], ids=ids[kept], stored=inside, placed=placed)


def at_most(frames: Sequence[FrameBoxes], maximum: int, rng: np.random.Generator) -> list[FrameBoxes]:
    """At most `maximum` objects in each frame: identities are let in by chance, while all of their frames have room.

    Those that are in a frame and in the next one come first, since only they have a positive.
    """
    if all(len(frame.ids) <= maximum for frame in frames):
        return list(frames)
    linked = {each for here, after in pairwise(frames) for each in np.intersect1d(here.ids, after.ids).tolist()}
    everybody = rng.permutation(np.unique(np.concatenate([frame.ids for frame in frames]))).tolist()
    room = np.full(len(frames), maximum)
    chosen = []
    for identity in sorted(everybody, key=lambda each: each not in linked):  # stable: otherwise as permuted
        there = np.array([identity in frame.ids for frame in frames])
        if (room[there] > 0).all():
            room -= there
            chosen.append(identity)
    kept = [np.isin(frame.ids, chosen) for frame in frames]
    return [replace(frame, boxes=frame.boxes[own], ids=frame.ids[own]) for frame, own in zip(frames, kept)]


def with_negatives(
    frame: FrameBoxes, number: int, jitter: Jitter, sample: StoredSample, settings: ClipSettings, use: NegativeUse
) -> FrameBoxes:
    """The frame with its pseudo-negatives behind its objects, best first.

    They are compared with all objects of the frame, before the augmentation and after it: a negative that holds an
    object among other things may be cut to that object at the border of the view.

    Raises:
        SidecarError, BadShard: see `negatives_of`.
    """
    stored = negatives_of(sample, number, use, frame.stored)
    negatives, enough = in_view(jitter.boxes(stored, sample.height, sample.width), jitter.size, settings)
    negatives = negatives[enough & ~overlapping_objects(negatives, frame.placed, use.max_iou)]
    ids = np.full(len(negatives), NEGATIVE, np.int64)
    return replace(frame, boxes=np.concatenate([frame.boxes, negatives]), ids=np.concatenate([frame.ids, ids]))
