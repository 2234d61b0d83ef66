"""Tracking inside someone's own program, in three lines.

from trackmill.pipeline.tracking.api import VideoTracker
tracker = VideoTracker("masa_r50", weights="masa_r50.pth")
tracked = tracker.update(image, detections)  # once for each frame
"""

from __future__ import annotations

import logging
import operator
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from trackmill.models.association import Tracker
from trackmill.models.detectors.base import Detector
from trackmill.models.device import choose_device
from trackmill.models.embedders.base import Embedder, EmbeddingNetwork
from trackmill.models.registry import DEFAULT_DETECTOR, MODELS
from trackmill.models.weights.packaged_person import INSTALL, is_packaged
from trackmill.pipeline.tracking.base import VideoModel
from trackmill.pipeline.tracking.build import make_video_model
from trackmill.pipeline.tracking.detection_forms import as_detections, is_supervision
from trackmill.pipeline.tracking.frame_reader import DEFAULT_FPS
from trackmill.pipeline.tracking.settings import TrackConfig
from trackmill.pipeline.tracking.timing import StageTimes
from trackmill.pipeline.tracking.two_stage import GivenDetections, TwoStage
from trackmill.pipeline.weights import build_detector
from trackmill.schemas.detections import Detections
from trackmill.schemas.errors import InputError
from trackmill.schemas.tracking import SourceFrame, TrackedObjects

if TYPE_CHECKING:
    from trackmill.models.detectors.frame_scaling import FrameScaling

log = logging.getLogger("trackmill")

_LEFT_OUT: Any = object()
"""What `update` takes for detections that nobody handed over."""

Supervision = Any
"""`supervision.Detections`; the package is not needed unless you use it."""

Columns = Detections | NDArray[np.floating] | list[Any] | tuple[Any, ...] | Mapping[str, Any]
"""Our record; an array or nested lists of boxes; or boxes, scores and labels, as a tuple or by their names."""


class VideoTracker:
    """Tracks the objects of one video, frame by frame: those that you have detected, or those that it finds itself.

    ```
    tracker = VideoTracker("masa_r50", weights="masa_r50.pth")
    tracked = tracker.update(image, detections)             # your detections
    tracker = VideoTracker("masa_r50", weights="masa_r50.pth", detections="masa")
    tracked = tracker.update(image)                         # its own
    tracker = VideoTracker("masa_r50", weights="masa_r50.pth")
    tracked = tracker.update(image)                         # people, found by ssdlite-person (extra `person`)
    tracker = VideoTracker("ip_mot", weights="ip_mot.safetensors")
    tracked = tracker.update(image)                         # people: it finds and links them itself
    ```

    Args:
        model: a name of `trackmill.models.registry.MODELS`, or `my_package.my_module:Class`; or an object: a network
            with `embed(images, boxes)`, an `Embedder`, or a `VideoModel`, which finds objects itself.
        weights: path or URL of the model's checkpoint, where the model is named; None: random weights, whose
            identities mean nothing.
        detections: what finds the objects: `masa` (the model's own proposals), `torchvision:NAME`,
            `my_package.my_module:Class`, or a `Detector`; None: they are handed to `update`, or the model is an
            end-to-end tracker. Where nothing is handed to the first `update` either, people are found by the packaged
            detector, if its extra is installed.
        detector_weights: path or URL of a named detector's checkpoint; None: published ones where there are some.
        tracker: name of a rule and its settings, see `trackmill.pipeline.tracking.settings.PRESETS`; or a tracker of
            your own; None: the rule that the model was made for, `tao` where it does not say.
        device: `auto` (a GPU where there is one), `cpu`, `cuda:1`, ...
        scaling: at what size frames are looked at; None: as the model's benchmark configuration says, 1024 for a
            model of your own.
        bgr: images come in blue, green, red, as OpenCV reads them.
        settings: of the tracker, by their official names; they win over the preset's. Of an end-to-end tracker of the
            registry, its own: `VideoTracker("ip_mot", weights=..., miss_tolerance=30)`.

    Raises:
        ValueError: an unknown name or setting, or weights of another model.
        ImportError: torch or another package is missing; says what to type.
    """

    def __init__(
        self,
        model: str | EmbeddingNetwork | Embedder | VideoModel,
        weights: str | None = None,
        *,
        detections: str | Detector | None = None,
        detector_weights: str | None = None,
        tracker: str | Tracker | None = None,
        device: str = "auto",
        scaling: FrameScaling | None = None,
        bgr: bool = False,
        **settings: Any,
    ) -> None:
        self._given = GivenDetections() if detections is None else None
        end_to_end = isinstance(model, str) and model in MODELS and MODELS[model].end_to_end
        self.model: VideoModel = make_video_model(
            model=model,
            weights=weights,
            detections=self._given or detections,
            detector_weights=detector_weights,
            tracker=tracker,
            device=device,
            scaling=scaling,
            config=TrackConfig(model=settings) if end_to_end else TrackConfig(tracker=settings),
        )
        if weights is None and isinstance(model, str) and model in MODELS:
            chance = "what it finds is" if end_to_end else "identities are"
            log.warning("%s without weights: they are random, so %s by chance", model, chance)
        if not isinstance(self.model, TwoStage):
            self._given = None
        self._device, self._handed = device, False
        self.times = StageTimes()
        """Where the time went so far."""
        self._bgr = bgr
        self.reset()

    @property
    def tracker(self) -> Tracker:
        """The rule that links detections; an end-to-end tracker has none.

        Raises:
            AttributeError: the model is an end-to-end tracker.
        """
        if not isinstance(self.model, TwoStage):
            raise AttributeError(f"{type(self.model).__name__} is an end-to-end tracker: it has no rule of its own")
        return self.model.tracker

    @property
    def num_tracks(self) -> int:
        """Identities handed out since the last `reset`."""
        return self.model.num_tracks

    def reset(self) -> None:
        """The next frame is the first of another video: identities begin at 0 again."""
        self.model.reset()
        self._next = 0

    @overload
    def update(
        self, image: NDArray[np.uint8], detections: Columns | None = ..., frame_index: int | None = None
    ) -> TrackedObjects: ...

    @overload
    def update(
        self, image: NDArray[np.uint8], detections: Supervision, frame_index: int | None = None
    ) -> Supervision: ...

    def update(self, image: NDArray[np.uint8], detections: Any = _LEFT_OUT, frame_index: int | None = None) -> Any:
        """Track the next frame.

        Args:
            image: (H, W, 3) uint8, RGB unless `bgr` was given.
            detections: `supervision.Detections`; or `trackmill.schemas.detections.Detections`; or `Results` or `Boxes`
                of ultralytics; or an array of boxes (N, 4), (N, 5) with scores, or (N, 6) with scores and classes, as
                boxmot has it; or a tuple of boxes (N, 4), scores (N,) and perhaps labels (N,), or a dictionary of them.
                Boxes are `x0, y0, x1, y1` in pixels of the image and may leave it; labels are whole numbers. `[]` where
                nothing was found; left out, or None, where objects are found here. A detector that answers None is
                no reason to look for people: only leaving it out is.
            frame_index: place of the frame in the video; None: the one after the last. Frames may be left out.

        Returns:
            The detections that belong to a track. For `supervision.Detections` the same kind in the given order,
            `tracker_id` filled and all else kept; otherwise `TrackedObjects`, best score first.

        Raises:
            ValueError: an image or detections of another form, numbers that are not finite, or detections where none
                are taken; the tracker is as before then.
        """
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            form = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
            raise InputError(f"image: should be (H, W, 3) uint8, found {form}")
        if 0 in image.shape:
            raise InputError(f"image: has no pixel, its shape is {image.shape}")
        left_out = detections is _LEFT_OUT
        detections = None if left_out else detections
        if self._given is None and detections is not None:
            raise InputError("detections: objects are found here already; leave them out")
        if self._given is not None and (left_out or detections is None):
            self._find_people(left_out)
        if self._given is not None:
            self._given.next = as_detections(detections)
            self._handed = True
        index = self._next if frame_index is None else _whole(frame_index)
        frame = SourceFrame(
            index=index,
            number=index + 1,
            time_s=index / DEFAULT_FPS,
            image=image[:, :, ::-1] if self._bgr else image,
            file_name="",
        )
        (tracked,) = self.model.track([frame], self.times)
        self._next = index + 1
        if not is_supervision(detections):
            return tracked
        order = np.argsort(tracked.indices)
        kept = detections[tracked.indices[order]]
        kept.tracker_id = tracked.ids[order]
        return kept

    def _find_people(self, left_out: bool) -> None:
        """From now on by the detector that is taken when nothing is said: only before anything was handed over."""
        if self._handed or not left_out or not is_packaged():
            install = "" if self._handed or not left_out else f", or install {DEFAULT_DETECTOR}: {INSTALL}"
            raise InputError(
                "detections: hand them over, [] where nothing was found; or name a detector: "
                f'VideoTracker(..., detections="masa"){install}'
            )
        assert isinstance(self.model, TwoStage)
        detector = build_detector(DEFAULT_DETECTOR, device=choose_device(self._device))
        self.model = TwoStage(detector, self.model.embedder, self.model.tracker, self.model.segmenter)
        self._given = None
        log.warning("no detections are given: people are found, by %s", DEFAULT_DETECTOR)


def _whole(frame_index: Any) -> int:
    try:
        return operator.index(frame_index)
    except TypeError:
        raise InputError(f"frame_index must be a whole number, not {frame_index!r}") from None
