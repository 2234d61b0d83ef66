"""What a proposer gave, held to its contract before it is stored: a proposer that breaks it ends the run."""

from __future__ import annotations

import numpy as np

from trackmill.schemas.errors import JobError
from trackmill.schemas.media import Frame, ProposalSet

_TOLERANCE = 0.01
"""Pixels by which a box may leave its frame: boxes are stored to a hundredth of a pixel."""


class BadProposals(JobError):
    """A proposer broke its contract; the text names it and says how. No item is to blame."""


def check_proposals(proposer: str, frame: Frame, proposals: ProposalSet) -> None:
    """Compare the proposals of a frame with the contract of `Proposer.propose`.

    Args:
        proposer: its name, for the error.
        frame: what it was given.
        proposals: what it returned.

    Raises:
        BadProposals: arrays of other shapes, numbers that are not finite, or a box without area or outside the frame.
    """
    boxes, scores = np.asarray(proposals.boxes, np.float64), np.asarray(proposals.scores, np.float64)
    count = len(boxes)
    if boxes.shape != (count, 4) or scores.shape != (count,) or len(proposals.masks) != count:
        raise BadProposals(
            f"proposer {proposer}: boxes should be (M, 4), scores (M,) and masks M; found {boxes.shape}, "
            f"{scores.shape} and {len(proposals.masks)}"
        )
    if not np.isfinite(boxes).all() or not np.isfinite(scores).all():
        raise BadProposals(f"proposer {proposer}: a box or a score is not finite")
    if proposals.from_objects:
        return  # the data set's own, which its source has checked
    height, width = frame.image.shape[:2]
    low, high = boxes[:, :2], boxes[:, 2:]
    fine = (
        (low >= -_TOLERANCE).all(1) & (high <= (width + _TOLERANCE, height + _TOLERANCE)).all(1) & (high > low).all(1)
    )
    if not fine.all():
        row = int(np.flatnonzero(~fine)[0])
        raise BadProposals(
            f"proposer {proposer}: box {row} is {boxes[row].tolist()}, which has no area or leaves its frame of "
            f"{height} x {width} pixels"
        )
