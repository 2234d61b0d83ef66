"""One video from frames to files: decoded and tracked batch by batch, written frame by frame."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

from trackmill.pipeline.console.output import warn
from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.scratch import naming
from trackmill.pipeline.tracking.base import VideoModel
from trackmill.pipeline.tracking.frame_reader import FrameReader
from trackmill.pipeline.tracking.timing import StageTimes
from trackmill.pipeline.tracking.writers import TrackSink
from trackmill.schemas.errors import InputError
from trackmill.schemas.tracking import SourceFrame, TrackedObjects


@dataclass(slots=True, kw_only=True)
class TrackingResult:
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


class TrackingStopped(KeyboardInterrupt):
    """A run was stopped.

    Args:
        num_frames: frames that were tracked.
        kept: URLs of the partial results.
    """

    def __init__(self, num_frames: int, kept: list[str]) -> None:
        super().__init__(f"stopped after {num_frames} frames")
        self.num_frames, self.kept = num_frames, kept


def track_video(
    reader: FrameReader,
    model: VideoModel,
    writers: Sequence[TrackSink],
    *,
    batch_size: int = 8,
    times: StageTimes | None = None,
    progress: Callable[[int], None] = lambda count: None,
) -> TrackingResult:
    """Track one video and write the result.

    A video that ends early, or pictures that cannot be read, do not stop the run: what was read is tracked and
    written, and `TrackingResult.problems` says what is missing. Any other failure leaves no half-written file behind.
    Ctrl-C, and a signal that acts like it, leaves what there is under names that say that it is partial.

    Args:
        reader: the frames; not closed here.
        model: tracks them; it is reset first.
        writers: where tracks go.
        batch_size: frames that the model gets at once.
        times: counts the time; None: a new one.
        progress: called with how many more frames are done.

    Raises:
        TrackingStopped: (a KeyboardInterrupt) stopped from outside.
        InputError: no frame could be read, or the model broke its contract.
        ValueError: the model refused its input.
        OSError: storage failed.
    """
    result = TrackingResult(times=times or StageTimes())
    try:
        for frame, tracked, num_done in _tracked(reader, model, batch_size, result.times):
            with result.times.stage("write", 1):
                for writer in writers:
                    with naming(writer.url):
                        writer.write(frame, tracked)
            result.num_frames += 1
            result.num_detections += tracked.num_detections
            result.num_tracked += int((tracked.indices >= 0).sum())  # boxes that were filled in are no detections
            if num_done:
                progress(num_done)
        if not result.num_frames:
            raise InputError("; ".join(reader.problems) or f"{reader.name}: holds no frame")
        with result.times.stage("write"):
            result.written = [url for url in (writer.finish() for writer in writers) if url]
    except KeyboardInterrupt:
        raise TrackingStopped(result.num_frames, _keep(writers) if result.num_frames else _abandon(writers)) from None
    except BaseException:
        _abandon(writers)
        raise
    result.num_tracks = model.num_tracks
    result.problems = list(reader.problems)
    return result


def _keep(writers: Sequence[TrackSink]) -> list[str]:
    """What is kept of a run that was stopped; a writer that cannot keep its own does not cost that of the others."""
    kept = []
    for writer in writers:
        try:
            kept.append(writer.keep())
        except Exception as error:
            warn(f"{redact(writer.url)}: the partial result could not be kept: {error}")
            writer.abandon()
    return [url for url in kept if url]


def _abandon(writers: Sequence[TrackSink]) -> list[str]:
    for writer in writers:
        writer.abandon()
    return []


def _tracked(
    reader: FrameReader, model: VideoModel, batch_size: int, times: StageTimes
) -> Iterator[tuple[SourceFrame, TrackedObjects, int]]:
    """Each frame with its tracked objects; one batch is in memory at a time.

    The number behind the last one of a batch is that of its frames, so that no rate is told of a batch half counted.
    """
    model.reset()
    frames = iter(reader)
    while True:
        with times.stage("decode"):
            batch = list(islice(frames, batch_size))
        if not batch:
            return
        times.add_frames("decode", len(batch))
        with times.stage_unless_counted("track", len(batch)):
            tracked = model.track(batch, times)
        _check(model, batch, tracked)
        num_done = [0] * (len(batch) - 1) + [len(batch)]
        yield from zip(batch, tracked, num_done, strict=True)


def _check(model: VideoModel, batch: list[SourceFrame], tracked: list[TrackedObjects]) -> None:
    """Refuse results that no file could hold, and say where the model, perhaps somebody else's, breaks the contract."""
    name = type(model).__name__
    if len(tracked) != len(batch):
        raise InputError(f"{name}.track gave {len(tracked)} results for {len(batch)} frames; it owes one a frame")
    known = len(model.category_ids)
    for frame, each in zip(batch, tracked, strict=True):
        labels = each.objects.labels
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < known:
            odd = next(label for label in labels.tolist() if not 0 <= label < known)
            raise InputError(f"{name}.track: frame {frame.index}: label {odd} is none of its {known} category_ids")
