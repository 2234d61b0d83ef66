"""The data set's own objects as proposals, so that SA-1B, SA-V and MOT can be mined without finding anything anew."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trackmill.models.proposers.base import Proposer
from trackmill.schemas.boxes import cut_at_frame, empty_boxes
from trackmill.schemas.config import Settings
from trackmill.schemas.media import Frame, ProposalSet


class AnnotationSettings(Settings):
    """Settings of `annotations`: there are none, since what people drew is taken as it is."""


class AnnotationProposer(Proposer):
    """Hands on the frame's objects: same number, same order, scores and masks unchanged; boxes cut at the border of the
    frame, where they leave it.

    Nothing is filtered or sorted, because proposal i *is* object i and later stages rely on that
    (`ProposalSet.from_objects`). A frame that nothing is said about gives an empty set.
    """

    name = "annotations"
    version = 1
    needs_annotations = True
    Config = AnnotationSettings

    def __init__(self, config: AnnotationSettings | None = None) -> None:
        self.config = config or AnnotationSettings()

    def propose(self, frames: Sequence[Frame]) -> list[ProposalSet]:
        return [_objects(frame) for frame in frames]


def _objects(frame: Frame) -> ProposalSet:
    found = frame.annotations
    if found is None:
        return ProposalSet(boxes=empty_boxes(), scores=np.zeros(0, np.float32), masks=[], from_objects=True)
    # Copies, so that whoever changes a proposal does not change the annotation.
    return ProposalSet(
        boxes=cut_at_frame(found.boxes.astype(np.float32), *frame.image.shape[:2]),
        scores=np.array(found.scores, np.float32),
        masks=list(found.masks),
        from_objects=True,
    )
