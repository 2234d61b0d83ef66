"""A proposer that takes a known time; in a module of its own, which actors import before anything of mining."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from trackmill.models.proposers import GraphProposer
from trackmill.schemas.media import Frame, ProposalSet

PROPOSAL_S = 0.020


class DummyProposer(GraphProposer):
    """Occupies its worker for 20 ms a frame and finds nothing."""

    def propose(self, frames: Sequence[Frame]) -> list[ProposalSet]:
        for _ in frames:
            time.sleep(PROPOSAL_S)
        return [
            ProposalSet(boxes=np.zeros((0, 4), np.float32), scores=np.zeros(0, np.float32), masks=[]) for _ in frames
        ]
