"""Trackers by name: detections and embeddings in, identities out. Importing this needs no torch."""

from trackmill.models.association.base import Tracker
from trackmill.models.association.masa_bdd import MasaBddSettings, MasaBddTracker
from trackmill.models.association.masa_tao import MasaTaoSettings, MasaTaoTracker
from trackmill.models.association.scaletrack import ScaleTrackSettings, ScaleTrackTracker

TRACKERS: dict[str, type[Tracker]] = {
    MasaTaoTracker.name: MasaTaoTracker,
    MasaBddTracker.name: MasaBddTracker,
    ScaleTrackTracker.name: ScaleTrackTracker,
}

__all__ = [
    "TRACKERS",
    "MasaBddSettings",
    "MasaBddTracker",
    "MasaTaoSettings",
    "MasaTaoTracker",
    "ScaleTrackSettings",
    "ScaleTrackTracker",
    "Tracker",
]
