"""A proposer that costs next to nothing: what a run under chaos does with its time is start, read, write and die."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from trackmill.models.proposers.base import Proposer
from trackmill.schemas.config import Settings
from trackmill.schemas.media import Frame, ProposalSet


class TinySettings(Settings):
    """How long it takes over a frame."""

    seconds: float = 0.01


class TinyProposer(Proposer):
    """One box a frame, which depends on its pixels, so that another picture gives other bytes."""

    name = "tiny"
    version = 1
    Config = TinySettings

    def propose(self, frames: Sequence[Frame]) -> list[ProposalSet]:
        time.sleep(self.config.seconds * len(frames))
        found = []
        for frame in frames:
            height, width = frame.image.shape[:2]
            x, y = int(frame.image[0, 0, 0]) % (width // 2), int(frame.image[-1, -1, 1]) % (height // 2)
            box = np.array([[x, y, x + width // 2, y + height // 2]], np.float32)
            found.append(ProposalSet(boxes=box, scores=np.ones(1, np.float32), masks=[None]))
        return found
