"""Tracking inside someone's own program, in three lines.

from trackmill.pipeline.tracking.api import VideoTracker
tracker = VideoTracker("masa_r50", weights="masa_r50.pth")
tracked = tracker.update(image, detections)  # once for each frame
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from trackmill.models.association import Tracker
from trackmill.pipeline.tracking.build import choose_device, load_model, model_scaling
from trackmill.pipeline.tracking.settings import SizeSettings, make_tracker
from trackmill.pipeline.tracking.tracked import TrackedObjects, with_identities
from trackmill.schemas.detections import Detections, make_detections

if TYPE_CHECKING:
    from trackmill.models.detectors.frame_scaling import FrameScaling
    from trackmill.pipeline.tracking.embedding import EmbeddingModel

Supervision = Any
"""`supervision.Detections`; the package is not needed unless you use it."""


class VideoTracker:
    """Gives identities to the detections of one video, frame by frame.

    Args:
        model: name of a MASA variant, or a model with `embed(images, boxes)`.
        weights: path or URL of the variant's checkpoint; None: random weights, whose identities mean nothing.
        tracker: name of a rule and its settings, see `trackmill.pipeline.tracking.settings.PRESETS`; or a tracker of
        your own.
        device: `auto` (a GPU where there is one), `cpu`, `cuda:1`, ...
        scaling: at what size frames are looked at; None: as the variant's benchmark configuration says, 1024 for a
            model of your own.
        bgr: images come in blue, green, red, as OpenCV reads them.
        settings: of the tracker, by their official names; they win over the preset's.

    Raises:
        ValueError: an unknown name or setting, or weights of another variant.
        ImportError: torch or another package is missing; says what to type.
    """

    def __init__(
        self,
        model: str | EmbeddingModel,
        weights: str | None = None,
        *,
        tracker: str | Tracker = "tao",
        device: str = "auto",
        scaling: FrameScaling | None = None,
        bgr: bool = False,
        **settings: Any,
    ) -> None:
        self.tracker = make_tracker(tracker, settings) if isinstance(tracker, str) else tracker
        if settings and not isinstance(tracker, str):
            raise ValueError(f"{next(iter(settings))}: settings go with a tracker's name; this one has its own already")
        place = choose_device(device)  # and, before torch is needed, what to type where it is missing
        from trackmill.models.detectors.frame_scaling import FrameScaling
        from trackmill.pipeline.tracking.embedding import Embedder

        if isinstance(model, str):
            loaded = load_model(model, weights, place)
            scaling = scaling or model_scaling(model, SizeSettings())
        else:
            loaded, scaling = model, scaling or FrameScaling()
        self._embedder = Embedder(loaded, scaling, place)
        self._bgr = bgr
        self._next = 0

    def reset(self) -> None:
        """The next frame is the first of another video: identities begin at 0 again."""
        self.tracker.reset()
        self._next = 0

    @overload
    def update(
        self, image: NDArray[np.uint8], detections: Detections | Any, frame_index: int | None = None
    ) -> TrackedObjects: ...

    @overload
    def update(
        self, image: NDArray[np.uint8], detections: Supervision, frame_index: int | None = None
    ) -> Supervision: ...

    def update(self, image: NDArray[np.uint8], detections: Any, frame_index: int | None = None) -> Any:
        """Track the next frame.

        Args:
            image: (H, W, 3) uint8, RGB unless `bgr` was said.
            detections: `supervision.Detections`; or `trackmill.schemas.detections.Detections`; or an array of boxes (N,
                4), or (N, 5) with scores; or a tuple of boxes (N, 4), scores (N,) and perhaps labels (N,). Boxes are
                `x0, y0, x1, y1` in pixels of the image and may leave it.
            frame_index: place of the frame in the video; None: the one after the last. Frames may be left out.

        Returns:
            The detections that belong to a track. For `supervision.Detections` the same kind in the given order,
            `tracker_id` filled and all else kept; otherwise `TrackedObjects`, best score first.

        Raises:
            ValueError: an image or detections of another form, or numbers that are not finite; the tracker is as
                before then.
        """
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            form = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
            raise ValueError(f"image: should be (H, W, 3) uint8, found {form}")
        if 0 in image.shape:
            raise ValueError(f"image: has no pixel, its shape is {image.shape}")
        found = _taken(detections)
        index = self._next if frame_index is None else frame_index
        rgb = image[:, :, ::-1] if self._bgr else image
        embeddings = self._embedder.embed([rgb], [found.boxes])[0]
        linked = self.tracker.update(found.boxes, found.scores, found.labels, embeddings, index)
        self._next = index + 1
        if not _is_supervision(detections):
            return with_identities(found, linked)
        order = np.argsort(linked.indices)
        given = detections[linked.indices[order]]
        given.tracker_id = linked.ids[order]
        return given


def _is_supervision(detections: Any) -> bool:
    # Whoever hands over an object of supervision's has imported it.
    module = sys.modules.get("supervision")
    return module is not None and isinstance(detections, module.Detections)


def _taken(detections: Any) -> Detections:
    if isinstance(detections, Detections):
        return detections
    if _is_supervision(detections):
        return make_detections(detections.xyxy, detections.confidence, detections.class_id)
    if isinstance(detections, tuple):
        if not 1 <= len(detections) <= 3:
            raise ValueError(f"detections: a tuple should be boxes, scores, labels; found {len(detections)} things")
        return make_detections(*detections)
    boxes = np.asarray(detections, np.float32)
    if boxes.ndim == 2 and boxes.shape[1] == 5:
        return make_detections(boxes[:, :4], boxes[:, 4])
    return make_detections(boxes)
