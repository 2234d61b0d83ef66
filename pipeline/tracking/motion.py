"""Rules that link boxes by their motion alone: SORT, ByteTrack, OC-SORT and BoT-SORT of the package `trackers`.

They are run as they are, with their own settings. They see no appearance, so no model is loaded; BoT-SORT looks at the
pictures to compensate for motion of the camera.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trackmill.models.detectors.base import Detector, detect_each
from trackmill.pipeline.tracking.base import VideoModel
from trackmill.pipeline.tracking.timing import StageTimes
from trackmill.schemas.detections import Detections
from trackmill.schemas.errors import InputError, MissingPackage
from trackmill.schemas.install import install, install_package
from trackmill.schemas.names import nearest, shortened
from trackmill.schemas.tracking import NO_IDENTITY, SourceFrame, TrackedObjects

MOTION_RULES = {
    "sort": "SORTTracker",
    "bytetrack": "ByteTrackTracker",
    "ocsort": "OCSORTTracker",
    "botsort": "BoTSORTTracker",
}
"""What `--tracker` says, and the class of `trackers`."""

SEES_PICTURES = frozenset({"botsort"})
"""The others warn when they are given one."""

INSTALL = (
    f"{install('motion')}; or, where another opencv wheel is installed already: "
    f"{install_package('supervision pydeprecate')} && {install_package('--no-deps trackers')}"
)
"""`trackers` asks for the wheel opencv-python, which must not lie beside another opencv wheel."""

_PLAIN = (bool, int, float, str)
"""Types of settings that can be written on a command line; the others are classes."""


class MotionRule:
    """One of the rules, for one video after another.

    Args:
        name: a key of `MOTION_RULES`.
        settings: by the names that `trackers` gives them, such as `lost_track_buffer`.

    Raises:
        InputError: a setting is unknown (names the nearest), or has a value that cannot be.
        MissingPackage: `trackers` is not installed; says what to type.
    """

    def __init__(self, name: str, settings: Mapping[str, Any] | None = None) -> None:
        self.name = name
        try:
            self._kind = getattr(importlib.import_module("trackers"), MOTION_RULES[name])
            self._boxes = importlib.import_module("supervision").Detections
        except (ImportError, AttributeError) as error:
            needed = f"--tracker {name} needs the package trackers, 2.6 or newer ({error})"
            raise MissingPackage(f"{needed}: {INSTALL}") from None
        self._settings = dict(settings or {})
        self._check()
        self.reset()

    def reset(self) -> None:
        """The next frame is the first of another video."""
        try:
            self._rule = self._kind(**self._settings)
        except (TypeError, ValueError) as error:
            raise InputError(f"--tracker {self.name}: {error}") from None
        self._last: int | None = None

    def update(self, detections: Detections, frame: SourceFrame) -> NDArray[np.int64]:
        """Link the detections of the next frame.

        Args:
            detections: N of them.
            frame: it; where frames before it are missing, nothing counts as detected in them.

        Returns:
            (N,) int64 identities from 0. -1 for a detection that belongs to no track, and for those of a track that was
            not seen often enough yet (`minimum_consecutive_frames`): the package does not name them afterwards either.
        """
        missing = 0 if self._last is None else frame.index - self._last - 1
        for _ in range(min(missing, self._rule.maximum_frames_without_update + 1)):
            self._rule.update(self._boxes.empty())
        self._last = frame.index
        # The package changes the order of detections, so each carries its place where its class would stand.
        given = self._boxes(
            xyxy=detections.boxes.astype(np.float64),
            confidence=detections.scores.astype(np.float64),
            class_id=np.arange(len(detections)),
        )
        image = np.ascontiguousarray(frame.image[:, :, ::-1]) if self.name in SEES_PICTURES else None
        found = self._rule.update(given, image)
        ids = np.full(len(detections), NO_IDENTITY, np.int64)
        if len(found):
            ids[found.class_id] = found.tracker_id
        return ids

    def _check(self) -> None:
        parameters = inspect.signature(self._kind.__init__).parameters
        known = {key: each.default for key, each in parameters.items() if isinstance(each.default, _PLAIN)}
        for key, value in self._settings.items():
            if key not in known:
                advice = nearest(key, known, "tracker.") or f"known keys: {', '.join(known)}"
                raise InputError(f"--tracker {self.name}: unknown key {shortened(f'tracker.{key}', 60)!r}; {advice}")
            kind = type(known[key])
            whole = type(value) is int and kind is float
            if type(value) is not kind and not whole:
                wanted = {bool: "true or false", int: "a whole number", float: "a number", str: "a word"}[kind]
                raise InputError(f"tracker.{key}: should be {wanted}, found {shortened(repr(value), 60)}")


class MotionTracking(VideoModel):
    """A detector finds objects, a rule links them by their motion.

    Args:
        detector: finds objects.
        rule: links them.
    """

    def __init__(self, detector: Detector, rule: MotionRule) -> None:
        self.detector, self.rule = detector, rule
        self.names, self.category_ids = detector.names, detector.category_ids
        self._num_tracks = 0

    def with_detector(self, detector: Detector) -> MotionTracking:
        """The same rule behind another detector, such as the file of another video."""
        return MotionTracking(detector, self.rule)

    def reset(self) -> None:
        """See `VideoModel.reset`."""
        self.rule.reset()
        self._num_tracks = 0

    def track(self, frames: Sequence[SourceFrame], times: StageTimes) -> list[TrackedObjects]:
        """See `VideoModel.track`; stages are detect and associate."""
        with times.stage("detect", len(frames)):
            images = [frame.image for frame in frames]
            detections = detect_each(self.detector, images, [frame.number - 1 for frame in frames])
        with times.stage("associate", len(frames)):
            ids = [self.rule.update(each, frame) for each, frame in zip(detections, frames, strict=True)]
        self._num_tracks = max([self._num_tracks, *(int(each.max()) + 1 for each in ids if len(each))])
        return [TrackedObjects.of(each, given) for each, given in zip(detections, ids, strict=True)]

    @property
    def num_tracks(self) -> int:
        """See `VideoModel.num_tracks`."""
        return self._num_tracks
