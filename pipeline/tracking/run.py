"""One video from frames to tracks: decoded, detected and embedded in batches, associated frame by frame, written."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from trackmill.models.association import Tracker
from trackmill.models.detectors.base import Detector
from trackmill.pipeline.tracking.frames import FrameReader, SourceFrame
from trackmill.pipeline.tracking.timing import StageTimes
from trackmill.pipeline.tracking.tracked import TrackedObjects, with_identities
from trackmill.pipeline.tracking.writers import TrackWriter
from trackmill.schemas.boxes import Boxes
from trackmill.schemas.errors import InputError
from trackmill.schemas.masks import CroppedMask


class FrameEmbedder(Protocol):
    """Embeddings (N_i, D) of boxes (N_i, 4) in uint8 frames; see `trackmill.pipeline.tracking.embedding.Embedder`."""

    def embed(self, images: Sequence[NDArray[np.uint8]], boxes: Sequence[Boxes]) -> list[NDArray[np.float32]]: ...


class Segmenter(Protocol):
    """Gives the mask of what each box (N_i, 4) holds; see `trackmill.models.masa.masks.SamMasks`."""

    def segment(
        self, images: Sequence[NDArray[np.uint8]], boxes: Sequence[Boxes]
    ) -> list[tuple[CroppedMask | None, ...]]: ...


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Who does what.

    Args:
        detector: finds objects.
        embedder: describes them.
        tracker: links them; it is reset first.
        segmenter: cuts out the objects that got an identity; None: masks are those of the detector, if it has any.
        batch_size: frames that are detected and embedded together.
    """

    detector: Detector
    embedder: FrameEmbedder
    tracker: Tracker
    segmenter: Segmenter | None = None
    batch_size: int = 8


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What a run came to.

    Args:
        num_frames, num_detections, num_tracked, num_tracks: frames that were tracked, detections in them, those that
            got an identity, and identities.
        problems: what could not be read; the tracks are of the rest.
        written: URLs of the files.
        times: where the time went.
    """

    num_frames: int = 0
    num_detections: int = 0
    num_tracked: int = 0
    num_tracks: int = 0
    problems: list[str] = field(default_factory=list)
    written: list[str] = field(default_factory=list)
    times: StageTimes = field(default_factory=StageTimes)


def track_video(
    reader: FrameReader,
    parts: Parts,
    writers: Sequence[TrackWriter],
    times: StageTimes | None = None,
    progress: Callable[[int], None] = lambda count: None,
) -> Outcome:
    """Track one video and write the result.

    A video that ends early, or pictures that cannot be read, do not stop the run: what was read is tracked and
    written, and `Outcome.problems` tells the rest. Any other failure leaves no half-written file behind.

    Args:
        reader: the frames; not closed here.
        parts: who does what.
        writers: where tracks go.
        times: counts the time; None: a new one.
        progress: called with how many more frames are done.

    Raises:
        ValueError: no frame could be read, or a part refused its input.
        OSError: storage failed.
    """
    outcome = Outcome(times=times or StageTimes())
    try:
        for frame, num_detections, tracked in _tracked(reader, parts, outcome.times):
            with outcome.times.stage("write", 1):
                for writer in writers:
                    writer.write(frame, tracked)
            outcome.num_frames += 1
            outcome.num_detections += num_detections
            outcome.num_tracked += len(tracked)
            progress(1)
        if not outcome.num_frames:
            raise InputError("; ".join(reader.problems) or f"{reader.name}: holds no frame")
        with outcome.times.stage("write"):
            outcome.written = [url for url in (writer.finish() for writer in writers) if url]
    except BaseException:
        for writer in writers:
            writer.abandon()
        raise
    outcome.num_tracks = parts.tracker.num_tracks
    outcome.problems = list(reader.problems)
    return outcome


def _tracked(reader: FrameReader, parts: Parts, times: StageTimes) -> Iterator[tuple[SourceFrame, int, TrackedObjects]]:
    """Each frame with the number of its detections and its tracked objects; one batch is in memory at a time."""
    parts.tracker.reset()
    frames = iter(reader)
    while True:
        with times.stage("decode"):
            batch = list(islice(frames, parts.batch_size))
        times.num_frames["decode"] += len(batch)
        if not batch:
            return
        images = [frame.image for frame in batch]
        with times.stage("detect", len(batch)):
            found = parts.detector.detect(images, [frame.number - 1 for frame in batch])
        with times.stage("embed", len(batch)):
            embeddings = parts.embedder.embed(images, [each.boxes for each in found])
        tracked = []
        with times.stage("associate", len(batch)):
            for frame, each, rows in zip(batch, found, embeddings, strict=True):
                linked = parts.tracker.update(each.boxes, each.scores, each.labels, rows, frame.index)
                tracked.append(with_identities(each, linked))
        if parts.segmenter is not None:
            with times.stage("segment", len(batch)):
                masks = parts.segmenter.segment(images, [each.objects.boxes for each in tracked])
            tracked = [
                replace(each, objects=replace(each.objects, masks=cut))
                for each, cut in zip(tracked, masks, strict=True)
            ]
        for frame, each, result in zip(batch, found, tracked, strict=True):
            yield frame, len(each), result
