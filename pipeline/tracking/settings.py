"""Every setting of a tracking run beside the command line's own options: `--set section.key=value`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import Field

from trackmill.models.association import MasaBddTracker, MasaTaoTracker, Tracker
from trackmill.pipeline.tracking.drawing import DrawSettings
from trackmill.pipeline.tracking.frames import ReadLimits
from trackmill.schemas.config import ConfigError, Settings, build, merge, parse_toml
from trackmill.schemas.errors import InputError

PRESETS: dict[str, tuple[type[Tracker], dict[str, Any]]] = {
    "tao": (MasaTaoTracker, {"init_score_thr": 0.1, "obj_score_thr": 0.01, "max_distance": 100, "fps": 30}),
    "tao-benchmark": (MasaTaoTracker, {"init_score_thr": 0.0001, "obj_score_thr": 0.0001}),
    "bdd": (MasaBddTracker, {"init_score_thr": 0.5, "obj_score_thr": 0.3, "match_score_thr": 0.6}),
}
"""Rules with official settings: of MASA's demo and plug-and-play use, of its TAO and open-vocabulary configurations,
and of its BDD100K configurations. What is not named is the class's default, which the configurations share."""


class SizeSettings(Settings):
    """At what size frames are looked at. 0: as the variant's benchmark configuration says."""

    long_side: int = Field(0, ge=0, le=16384, description="Frames are scaled, up or down, to this longer side.")
    short_side: int = Field(0, ge=0, le=16384, description="Their shorter side does not exceed this.")


class ProposalSettings(Settings):
    """MASA's own proposal head as a detector. Defaults: the paper's section 3.2.3 and appendix (segment everything)."""

    max_boxes: int = Field(300, ge=1, description="Boxes a frame. Released where no masks are asked for: 50.")
    nms_iou: float = Field(0.5, ge=0, le=1, description="Of two boxes that overlap more, the better one stays.")
    min_score: float = Field(0.02, ge=0, le=1, description="What a score must exceed; as released.")


class TrackConfig(Settings):
    """The resolved settings of one run."""

    read: ReadLimits = ReadLimits()
    size: SizeSettings = SizeSettings()
    proposals: ProposalSettings = ProposalSettings()
    draw: DrawSettings = DrawSettings()
    tracker: dict[str, Any] = Field(
        default_factory=dict, description="Settings of the tracker, by their official names."
    )
    detector: dict[str, Any] = Field(default_factory=dict, description="Options of a torchvision detector.")


def track_config(assignments: Sequence[str]) -> TrackConfig:
    """Settings from `section.key=value` texts; values are TOML, a bare word is text.

    Raises:
        ConfigError: no `=`, an unknown key, or a value out of range; names the key.
    """
    values: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"--set {assignment!r}: should be section.key=value, such as tracker.match_score_thr=0.6")
        try:
            value = parse_toml(f"value = {text.strip()}", "--set")["value"]
        except ConfigError:
            value = text.strip()
        for part in reversed(key.strip().split(".")):
            value = {part: value}
        values = merge(values, value)
    return build(TrackConfig, values, "--set")


def make_tracker(name: str, changes: dict[str, Any] | None = None) -> Tracker:
    """A tracker by its name in `PRESETS`, with some settings changed.

    Raises:
        ValueError: an unknown name or setting (names the nearest), or one out of range.
    """
    if name not in PRESETS:
        raise InputError(f"tracker {name!r}: known are {', '.join(PRESETS)}")
    kind, official = PRESETS[name]
    return kind(**{**official, **(changes or {})})
