"""A proposer that hangs on black pictures, as a device may."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from trackmill.models.proposers.base import Proposer
from trackmill.models.proposers.graph import GraphProposer
from trackmill.schemas.config import Settings
from trackmill.schemas.media import Frame, ProposalSet


class Hanging(Proposer):
    """`graph`, but for black pictures."""

    name = "hanging"
    version = 1

    def __init__(self) -> None:
        self._graph = GraphProposer()

    @classmethod
    def build(cls, config: Settings, tensors: Mapping[str, Any] | None, device: str) -> Hanging:
        return cls()

    def propose(self, frames: Sequence[Frame]) -> list[ProposalSet]:
        while not any(frame.image.any() for frame in frames):
            time.sleep(1)
        return self._graph.propose(frames)
