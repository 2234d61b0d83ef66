"""Every setting of a tracking run beside the command line's own options: `--set section.key=value`."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from trackmill.models.association import MasaBddTracker, MasaTaoTracker, ScaleTrackTracker, Tracker
from trackmill.models.association.offline import OfflineSettings
from trackmill.pipeline.tracking.drawing import DrawSettings
from trackmill.pipeline.tracking.frame_reader import ReadLimits
from trackmill.schemas.config import Settings
from trackmill.schemas.errors import InputError

PRESETS: dict[str, tuple[type[Tracker], dict[str, Any]]] = {
    "tao": (MasaTaoTracker, {"init_score_thr": 0.1, "obj_score_thr": 0.01, "max_distance": 100, "fps": 30}),
    "tao-benchmark": (MasaTaoTracker, {"init_score_thr": 0.0001, "obj_score_thr": 0.0001}),
    "bdd": (MasaBddTracker, {"init_score_thr": 0.5, "obj_score_thr": 0.3, "match_score_thr": 0.6}),
    "scaletrack": (ScaleTrackTracker, {}),
}
"""Rules with official settings: of MASA's demo and plug-and-play use, of its TAO and open-vocabulary configurations,
and of its BDD100K configurations; and ScaleTrack's. What is not named is the class's default, which the configurations
share."""

DEFAULT_TRACKER = "tao"
"""Of a model that does not say which rule it was made for."""


class SizeSettings(Settings):
    """At what size frames are looked at. 0: as the model's benchmark configuration says."""

    long_side: int = Field(0, ge=0, le=16384, description="Frames are scaled, up or down, to this longer side.")
    short_side: int = Field(0, ge=0, le=16384, description="Their shorter side does not exceed this.")


class TrackConfig(Settings):
    """The resolved settings of one run."""

    read: ReadLimits = ReadLimits()
    size: SizeSettings = SizeSettings()
    proposals: dict[str, Any] = Field(
        default_factory=dict, description="Settings of the model's own proposals (--detections masa)."
    )
    draw: DrawSettings = DrawSettings()
    tracker: dict[str, Any] = Field(
        default_factory=dict, description="Settings of the tracker, by their official names."
    )
    detector: dict[str, Any] = Field(
        default_factory=dict,
        description="Of every detector: min_score, classes, nms_iou, class_agnostic_nms, max_boxes; and the settings "
        "of the one that --detections names.",
    )
    model: dict[str, Any] = Field(default_factory=dict, description="Settings of the model that --model names.")
    offline: OfflineSettings = OfflineSettings()


def make_tracker(name: str, changes: dict[str, Any] | None = None) -> Tracker:
    """A tracker by its name in `PRESETS`, with some settings changed.

    Raises:
        ValueError: an unknown name or setting (names the nearest), or one out of range.
    """
    if name not in PRESETS:
        raise InputError(f"tracker {name!r}: known are {', '.join(PRESETS)}")
    kind, official = PRESETS[name]
    return kind(**{**official, **(changes or {})})
