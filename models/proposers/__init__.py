"""Proposers and their settings; by name they are in `trackmill.models.registry.PROPOSERS`.

Importing this is cheap: torch, OpenCV and scikit-image are loaded by the one that is built.
"""

from trackmill.models.proposers.annotations import AnnotationProposer, AnnotationSettings
from trackmill.models.proposers.base import Proposer, WeightsSettings
from trackmill.models.proposers.graph import GraphProposer, GraphSettings
from trackmill.models.proposers.sam import SamProposer, SamSettings

__all__ = [
    "AnnotationProposer",
    "AnnotationSettings",
    "GraphProposer",
    "GraphSettings",
    "Proposer",
    "SamProposer",
    "SamSettings",
    "WeightsSettings",
]
