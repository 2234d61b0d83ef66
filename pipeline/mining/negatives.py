"""Pseudo-negatives: proposals that are no annotated object, for telling objects from what else is in the picture."""

from __future__ import annotations

import numpy as np

from trackmill.schemas.boxes import Boxes, box_areas, iou_matrix
from trackmill.schemas.media import Annotations, ProposalSet


def pseudo_negatives(
    proposals: ProposalSet, annotations: Annotations | None, annotated: bool, max_iou: float
) -> list[int]:
    """Which proposals of a frame are pseudo-negatives.

    Source: ScaleTrack, section 3.3 (and table 13: 53.5 to 57.3 with them): detector proposals, without those of IoU >=
    0.5 to a ground-truth box of the frame. Only that test is made here. Score >= 0.3, NMS at 0.4 and the 100 best are
    left to the trainer, who can then vary them without mining again; a shard keeps every negative, best first.

    They are negatives only, never positives: data sets like SA-V do not list every object, so one of them may well be
    an object, but it is none of those whose identity is known.

    Args:
        proposals: of one frame.
        annotations: of the same frame in the same pixels; None where the data set says nothing about this frame.
        annotated: whether the data set lists objects for this item at all.
        max_iou: a proposal whose box has this IoU or more with an annotated box is none; neither is one with this
            share or more of its box inside an `ignore` region. The share and not the IoU, because an ignore region is
            often a whole crowd, and a person in the middle of it has a small IoU with it.

    Returns:
        Indices into `proposals`, ascending. Empty where nothing is known of the frame, since then nothing is known not
        to be an object, and for proposals that are the objects themselves. A frame that was annotated and has no
        object makes all of its proposals negatives.
    """
    if not annotated or annotations is None or proposals.from_objects:
        return []
    near_object = (iou_matrix(proposals.boxes, annotations.boxes) >= max_iou).any(axis=1)
    ignored = (_share_inside(proposals.boxes, annotations.ignore) >= max_iou).any(axis=1)
    negatives: list[int] = np.flatnonzero(~(near_object | ignored)).tolist()
    return negatives


def _share_inside(boxes: Boxes, regions: Boxes) -> Boxes:
    """Share of every box (M, 4) that lies inside every region (K, 4): (M, K) float32 in 0..1."""
    low = np.maximum(boxes[:, None, :2], regions[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], regions[None, :, 2:])
    sides = np.clip(high - low, 0, None)
    shares: Boxes = sides[..., 0] * sides[..., 1] / np.maximum(box_areas(boxes)[:, None], 1e-9)
    return shares
