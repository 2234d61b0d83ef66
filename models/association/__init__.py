"""Trackers by name: detections and embeddings in, identities out. Importing this needs no torch."""

from trackmill.models.association.base import Tracker
from trackmill.models.association.masa_bdd import MasaBddSettings, MasaBddTracker
from trackmill.models.association.masa_tao import MasaTaoSettings, MasaTaoTracker

TRACKERS: dict[str, type[Tracker]] = {
    MasaTaoTracker.name: MasaTaoTracker,
    MasaBddTracker.name: MasaBddTracker,
}

__all__ = [
    "TRACKERS",
    "MasaBddSettings",
    "MasaBddTracker",
    "MasaTaoSettings",
    "MasaTaoTracker",
    "Tracker",
]
