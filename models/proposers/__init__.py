"""Proposers by name. Importing this is cheap: torch, OpenCV and scikit-image are loaded by the one that is built."""

from trackmill.models.proposers.annotations import AnnotationProposer, AnnotationSettings
from trackmill.models.proposers.base import Proposer, ProposerUnavailable
from trackmill.models.proposers.graph import GraphProposer, GraphSettings
from trackmill.models.proposers.sam import SamProposer, SamSettings

PROPOSERS: dict[str, type[Proposer]] = {
    "graph": GraphProposer,
    "annotations": AnnotationProposer,
    "sam": SamProposer,
}

__all__ = [
    "PROPOSERS",
    "AnnotationProposer",
    "AnnotationSettings",
    "GraphProposer",
    "GraphSettings",
    "Proposer",
    "ProposerUnavailable",
    "SamProposer",
    "SamSettings",
]
