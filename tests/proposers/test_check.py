"""Proposals that break the contract end the run and name the proposer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from trackmill.models.proposers.check import BadProposals, check_proposals
from trackmill.schemas.media import Frame, ProposalSet

FRAME = Frame(image=np.zeros((40, 60, 3), np.uint8))


def proposals(boxes: Any = ((1, 2, 30, 20),), scores: Any = (0.5,), **more: Any) -> ProposalSet:
    boxes = np.asarray(boxes, np.float32)
    return ProposalSet(boxes=boxes, scores=np.asarray(scores, np.float32), masks=[None] * len(boxes), **more)


def test_what_keeps_to_it_passes() -> None:
    check_proposals("mine", FRAME, proposals())
    check_proposals("mine", FRAME, proposals([[0, 0, 60, 40]]))
    check_proposals("mine", FRAME, proposals(np.zeros((0, 4)), []))
    # What people annotated is the source's to check.
    check_proposals("mine", FRAME, proposals([[0, 0, 99, 40]], from_objects=True))


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (proposals([[0, 0, 99999, 9]]), "proposer mine: box 0 .* leaves its frame of 40 x 60"),
        (proposals([[0, 0, 5, 5], [-3, 0, 5, 5]], [1, 1]), "box 1 "),
        (proposals([[5, 5, 5, 9]]), "no area"),
        (proposals([[9, 5, 5, 9]]), "no area"),
        (proposals([[0, 0, np.nan, 9]]), "not finite"),
        (proposals(scores=[np.inf]), "not finite"),
        (proposals(scores=[1, 1]), r"scores \(M,\)"),
        (proposals([[1, 2, 3]]), r"boxes should be \(M, 4\)"),
    ],
)
def test_what_breaks_it_is_named(found: ProposalSet, message: str) -> None:
    with pytest.raises(BadProposals, match=message):
        check_proposals("mine", FRAME, found)
