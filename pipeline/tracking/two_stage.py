"""Two-stage tracking as one `VideoModel`: detect and embed in batches, associate frame by frame, perhaps segment."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from trackmill.models.association import Tracker
from trackmill.models.detectors.base import Detector, detect_each
from trackmill.models.detectors.segmenter import BoxSegmenter
from trackmill.models.embedders.base import Embedder
from trackmill.pipeline.tracking.base import VideoModel
from trackmill.pipeline.tracking.timing import StageTimes
from trackmill.schemas.detections import Detections, make_detections
from trackmill.schemas.tracking import SourceFrame, TrackedObjects


class TwoStage(VideoModel):
    """A detector finds objects, an embedder describes them, a tracker links them (MASA, section 3.3).

    Args:
        detector: finds objects.
        embedder: describes them.
        tracker: links them.
        segmenter: cuts out the objects that got an identity; None: masks are those of the detector, if it has any.
    """

    def __init__(
        self, detector: Detector, embedder: Embedder, tracker: Tracker, segmenter: BoxSegmenter | None = None
    ) -> None:
        self.detector, self.embedder, self.tracker, self.segmenter = detector, embedder, tracker, segmenter
        self.names, self.category_ids = detector.names, detector.category_ids

    def with_detector(self, detector: Detector) -> TwoStage:
        """The same stages behind another detector, such as the file of another video."""
        return TwoStage(detector, self.embedder, self.tracker, self.segmenter)

    def reset(self) -> None:
        """See `VideoModel.reset`."""
        self.embedder.reset()
        self.tracker.reset()

    def track(self, frames: Sequence[SourceFrame], times: StageTimes) -> list[TrackedObjects]:
        """See `VideoModel.track`; stages are detect, embed, associate and segment."""
        images = [frame.image for frame in frames]
        with times.stage("detect", len(frames)):
            detections = detect_each(self.detector, images, [frame.number - 1 for frame in frames])
        with times.stage("embed", len(frames)):
            # What the tracker will not look at is not described either.
            wanted = [self.tracker.wanted(each) for each in detections]
            boxes = [each.boxes if rows is None else each.boxes[rows] for each, rows in zip(detections, wanted)]
            embeddings = self.embedder.embed(images, boxes)
        with times.stage("associate", len(frames)):
            tracked = [
                TrackedObjects.of(each, self._identities(each, rows, found, frame.index))
                for frame, each, rows, found in zip(frames, detections, wanted, embeddings, strict=True)
            ]
        for frame, each, rows, found in zip(frames, tracked, wanted, embeddings, strict=True):
            self.look(frame, each, found[_places(each.indices, rows)])
        if self.segmenter is None:
            return tracked
        with times.stage("segment", len(frames)):
            masks = self.segmenter.segment(images, [each.objects.boxes for each in tracked])
        return [each.with_masks(cut) for each, cut in zip(tracked, masks, strict=True)]

    def look(self, frame: SourceFrame, tracked: TrackedObjects, embeddings: NDArray[np.float32]) -> None:
        """Called with the objects of each frame and their (M, D) embeddings, in the order of the frames."""

    def _identities(
        self, detections: Detections, rows: NDArray[np.int64] | None, embeddings: NDArray[np.float32], index: int
    ) -> NDArray[np.int64]:
        """(N,), from the embeddings of the detections that take part."""
        if rows is None:
            return self.tracker.update(detections, embeddings, index)
        ids = np.full(len(detections), -1, np.int64)
        ids[rows] = self.tracker.update(detections.select(rows), embeddings, index)
        return ids

    @property
    def num_tracks(self) -> int:
        """See `VideoModel.num_tracks`."""
        return self.tracker.num_tracks


def _places(indices: NDArray[np.int64], rows: NDArray[np.int64] | None) -> NDArray[np.int64]:
    """Where the embeddings of detections stand, if only those in `rows` have one: no other can have an identity."""
    if rows is None or not len(indices):
        return indices
    places = np.zeros(int(rows.max()) + 1, np.int64)
    places[rows] = np.arange(len(rows))
    return places[indices]


class GivenDetections(Detector):
    """Stands where a detector does, and gives what the caller has detected in the next frame."""

    names = ()
    category_ids = ()

    def __init__(self) -> None:
        self.next = make_detections([])

    def detect(self, images: Sequence[NDArray[np.uint8]], frames: Sequence[int] | None = None) -> list[Detections]:
        """See `Detector.detect`; of one image."""
        assert len(images) == 1, "one frame is handed over at a time"
        return [self.next]
