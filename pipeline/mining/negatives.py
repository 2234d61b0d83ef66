"""Pseudo-negatives: proposals that are no annotated object, for telling objects from what else is in the picture."""

from __future__ import annotations

import numpy as np

from trackmill.schemas.boxes import cut_at_frame
from trackmill.schemas.media import Annotations, ProposalSet
from trackmill.schemas.negatives import inside_ignored, overlapping_objects


def pseudo_negatives(
    proposals: ProposalSet,
    annotations: Annotations | None,
    annotated: bool,
    max_iou: float,
    size: tuple[int, int] | None = None,
) -> list[int]:
    """Which proposals of a frame are pseudo-negatives.

    The rule is that of `trackmill.schemas.negatives`, the same as for what a detector finds (the sidecar `negatives`).
    Score >= 0.3, NMS at 0.4 and the 100 best are left to the trainer, who can then vary them without mining again; a
    shard keeps every negative, best first.

    They are negatives only, never positives: data sets like SA-V do not list every object, so one of them may well be
    an object, but it is none of those whose identity is known.

    Args:
        proposals: of one frame.
        annotations: of the same frame in the same pixels; None where the data set says nothing about this frame.
        annotated: whether the data set lists objects for this item at all.
        max_iou: a proposal whose box has this IoU or more with an annotated box is none; neither is one with this
            share or more of its box inside an `ignore` region.
        size: height and width of the frame, where annotated boxes may leave it: they count as far as they lie inside,
            since that is what can be found of them.

    Returns:
        Indices into `proposals`, ascending. Empty where nothing is known of the frame, since then nothing is known not
        to be an object, and for proposals that are the objects themselves. A frame that was annotated and has no
        object makes all of its proposals negatives.
    """
    if not annotated or annotations is None or proposals.from_objects:
        return []
    objects = annotations.boxes if size is None else cut_at_frame(annotations.boxes, *size)
    near = overlapping_objects(proposals.boxes, objects, max_iou)
    ignored = inside_ignored(proposals.boxes, annotations.ignore, max_iou)
    negatives: list[int] = np.flatnonzero(~(near | ignored)).tolist()
    return negatives
