"""Offline mode: a video is tracked, all of its tracks are looked at once more, and then written.

The first pass is the model as it is; of each piece of a track one mean embedding is kept. When the video has ended,
`trackmill.models.association.offline` says which pieces are one object. Rows are written then. Who needs pictures, to
draw or to cut masks out, gets what was decided in a second pass, which reads the video again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from trackmill.models.association.offline import OfflineSettings, Pieces, join_pieces
from trackmill.models.detectors.segmenter import BoxSegmenter
from trackmill.pipeline.console.output import warn
from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.tracking.base import VideoModel
from trackmill.pipeline.tracking.frame_reader import FrameReader
from trackmill.pipeline.tracking.run import TrackingResult, TrackingStopped, track_video
from trackmill.pipeline.tracking.timing import StageTimes
from trackmill.pipeline.tracking.two_stage import TwoStage
from trackmill.pipeline.tracking.writers import TrackSink
from trackmill.schemas.detections import Detections
from trackmill.schemas.errors import InputError
from trackmill.schemas.tracking import SourceFrame, TrackedObjects


@dataclass(slots=True, eq=False)
class _Seen:
    """A frame of the first pass.

    Args:
        frame: with a black picture that takes no memory.
        tracked: with identities of the online rule.
        pieces: (M,) the piece of each object.
    """

    frame: SourceFrame
    tracked: TrackedObjects
    pieces: NDArray[np.int64]


class FirstPass(TwoStage):
    """The model, with a notebook: what it tracks, and how each piece of a track looks on average.

    Args:
        model: whose parts do the work; what segments waits for the second pass.
        settings: of cutting and joining.
    """

    def __init__(self, model: TwoStage, settings: OfflineSettings) -> None:
        super().__init__(model.detector, model.embedder, model.tracker)
        self._settings = settings
        self.reset()

    def reset(self) -> None:
        """See `VideoModel.reset`."""
        super().reset()
        self._pieces = Pieces(self._settings)
        self.seen: dict[int, _Seen] = {}
        """By index of the frame."""

    def look(self, frame: SourceFrame, tracked: TrackedObjects, embeddings: NDArray[np.float32]) -> None:
        """See `TwoStage.look`."""
        objects = tracked.objects
        pieces = self._pieces.add(frame.index, frame.time_s, tracked.ids, objects.boxes, objects.labels, embeddings)
        black = np.broadcast_to(np.uint8(0), frame.image.shape)
        self.seen[frame.index] = _Seen(replace(frame, image=black), tracked, pieces)

    def joined(self, segmenter: BoxSegmenter | None) -> Joined:
        """What the second pass hands out."""
        groups = join_pieces(self._pieces.all, self._settings)
        frames = {
            index: TrackedObjects(
                ids=groups[seen.pieces],
                objects=seen.tracked.objects,
                indices=seen.tracked.indices,
                num_detections=seen.tracked.num_detections,
            )
            for index, seen in self.seen.items()
        }
        if self._settings.fill_s:
            frames = filled(
                frames, {index: seen.frame.time_s for index, seen in self.seen.items()}, self._settings.fill_s
            )
        return Joined(self, frames, int(groups.max(initial=-1)) + 1, segmenter)


class Joined(VideoModel):
    """Gives for each frame what was decided.

    Args:
        model: whose names and categories hold.
        frames: objects by index of the frame.
        num_tracks: identities in all.
        segmenter: cuts the objects out; None: their masks are those of the detector, if it has any.
    """

    def __init__(
        self, model: VideoModel, frames: dict[int, TrackedObjects], num_tracks: int, segmenter: BoxSegmenter | None
    ) -> None:
        self.names, self.category_ids = model.names, model.category_ids
        self._frames, self._num_tracks, self._segmenter = frames, num_tracks, segmenter

    def reset(self) -> None:
        """See `VideoModel.reset`: nothing is remembered."""

    def track(self, frames: Sequence[SourceFrame], times: StageTimes) -> list[TrackedObjects]:
        """See `VideoModel.track`."""
        found = [self._frames[frame.index] for frame in frames]
        if self._segmenter is None:
            return found
        with times.stage("segment", len(frames)):
            masks = self._segmenter.segment([frame.image for frame in frames], [each.objects.boxes for each in found])
        return [each.with_masks(cut) for each, cut in zip(found, masks, strict=True)]

    @property
    def num_tracks(self) -> int:
        """See `VideoModel.num_tracks`."""
        return self._num_tracks


def track_offline(
    reader: FrameReader,
    again: Callable[[], FrameReader],
    model: VideoModel,
    writers: Sequence[TrackSink],
    settings: OfflineSettings,
    *,
    batch_size: int = 8,
    times: StageTimes | None = None,
    progress: Callable[[int], None] = lambda count: None,
) -> TrackingResult:
    """Track a video, join its tracks and write the result; nothing is written before the video has ended or is stopped.

    Args:
        reader: the frames; `again` opens the same video once more, whole, where pictures are needed.
        model, writers, batch_size, times, progress: see `trackmill.pipeline.tracking.run.track_video`.
        settings: of cutting and joining.

    Raises:
        InputError: the model is an end-to-end tracker, which describes no boxes; or see `track_video`.
        TrackingStopped: (a KeyboardInterrupt) stopped from outside. In the first pass its rows are kept, joined as far
            as they go; in the second one they are whole, and what needs pictures ends early.
        ValueError, OSError: see `track_video`.
    """
    times = times or StageTimes()
    # A segmenter adds its masks to the rows too.
    needs_pictures = [writer for writer in writers if writer.draws or getattr(model, "segmenter", None) is not None]
    try:
        if not isinstance(model, TwoStage):
            raise InputError(
                f"offline mode compares embeddings, and {type(model).__name__} gives none: track online, or with "
                "another --model"
            )
        first = FirstPass(model, settings)
        try:
            track_video(reader, first, (), batch_size=batch_size, times=times, progress=progress)
            with times.stage("join"):
                joined = first.joined(model.segmenter)
        except KeyboardInterrupt:
            kept = _keep_seen(reader, first, [writer for writer in writers if not writer.draws])
            raise TrackingStopped(len(first.seen), kept) from None
        rows = [writer for writer in writers if writer not in needs_pictures]
        result = _finish(reader, first, joined, again, rows, needs_pictures, batch_size, times)
    except BaseException:
        for writer in writers:
            writer.abandon()  # what is finished or kept stays
        raise
    result.problems = list(dict.fromkeys([*reader.problems, *result.problems]))
    return result


def _finish(
    reader: FrameReader,
    first: FirstPass,
    joined: Joined,
    again: Callable[[], FrameReader],
    rows: Sequence[TrackSink],
    needs_pictures: Sequence[TrackSink],
    batch_size: int,
    times: StageTimes,
) -> TrackingResult:
    """Write the rows, which are all known, and then what needs the pictures again."""
    result = TrackingResult(times=times)
    if rows or not needs_pictures:
        result = track_video(_Noted(reader, first.seen), joined, rows, batch_size=batch_size, times=times)
    if not needs_pictures:
        return result
    try:
        with closing(_SecondReading(again(), first.seen)) as frames:
            second = track_video(frames, joined, needs_pictures, batch_size=batch_size, times=times)
    except KeyboardInterrupt as stopped:
        frames_done, kept = (stopped.num_frames, stopped.kept) if isinstance(stopped, TrackingStopped) else (0, [])
        raise TrackingStopped(max(result.num_frames, frames_done), result.written + kept) from None
    if lost := len(first.seen) - second.num_frames:
        second.problems.append(f"{reader.name}: {lost} frames could be read only once, and offline mode reads twice")
    if not rows:
        return second
    return replace(result, written=result.written + second.written, problems=result.problems + second.problems)


def _keep_seen(reader: FrameReader, first: FirstPass, writers: Sequence[TrackSink]) -> list[str]:
    """What the first pass has seen until it was stopped, joined as far as it goes, as partial results."""
    kept: list[str] = []
    if not first.seen:
        return kept
    joined = first.joined(None)
    for writer in writers:
        try:
            kept += track_video(_Noted(reader, first.seen), joined, [_Partial(writer)]).written
        except Exception as error:
            warn(f"{redact(writer.url)}: the partial result could not be kept: {error}")
    return kept


class _Partial(TrackSink):
    """Rows that end early: what is finished is kept as a partial result."""

    def __init__(self, writer: TrackSink) -> None:
        self.url, self._writer = writer.url, writer

    def write(self, frame: SourceFrame, tracked: TrackedObjects) -> None:
        """See `TrackSink.write`."""
        self._writer.write(frame, tracked)

    def finish(self) -> str:
        """See `TrackSink.keep`."""
        return self._writer.keep()

    keep = finish

    def abandon(self) -> None:
        """See `TrackSink.abandon`."""
        self._writer.abandon()


class _Noted(FrameReader):
    """The frames of the first pass as it has noted them, with black pictures.

    Args:
        reader: of the first pass.
        seen: by index.
    """

    def __init__(self, reader: FrameReader, seen: dict[int, _Seen]) -> None:
        super().__init__(reader.name, reader.fps, len(seen))
        self._seen = seen

    def __iter__(self) -> Iterator[SourceFrame]:
        return (each.frame for each in self._seen.values())


class _SecondReading(FrameReader):
    """The frames that the first pass has seen, as it knew them, with their pictures.

    Args:
        reader: of the whole video; closed with this one.
        seen: by index.
    """

    def __init__(self, reader: FrameReader, seen: dict[int, _Seen]) -> None:
        super().__init__(reader.name, reader.fps, len(seen))
        self._reader, self._seen = reader, seen
        self.problems = reader.problems

    def __iter__(self) -> Iterator[SourceFrame]:
        last = max(self._seen, default=-1)
        for frame in self._reader:
            if frame.index in self._seen:
                yield replace(self._seen[frame.index].frame, image=frame.image)
            if frame.index >= last:
                return

    def close(self) -> None:
        """See `FrameReader.close`."""
        self._reader.close()


def filled(frames: dict[int, TrackedObjects], times: dict[int, float], longest_s: float) -> dict[int, TrackedObjects]:
    """The same with boxes on the straight line where a track was not seen for a while.

    Args:
        frames, times: objects and seconds by index of the frame.
        longest_s: longer gaps stay empty.

    Returns:
        The frames; a filled box has the lower score of both ends, no mask, and -1 for its place among the detections.
    """
    last: dict[int, tuple[int, int]] = {}
    more: dict[int, list[tuple[int, NDArray[np.float32], float, int]]] = {}
    order = sorted(frames)
    place = {index: number for number, index in enumerate(order)}
    for index in order:
        objects = frames[index].objects
        for row, identity in enumerate(frames[index].ids.tolist()):
            before = last.get(identity)
            last[identity] = (index, row)
            if before is None or times[index] - times[before[0]] > longest_s:
                continue
            then, there = frames[before[0]].objects, before[1]
            score = float(min(then.scores[there], objects.scores[row]))
            for between in order[place[before[0]] + 1 : place[index]]:
                share = (times[between] - times[before[0]]) / (times[index] - times[before[0]])
                box = (1 - share) * then.boxes[there] + share * objects.boxes[row]
                more.setdefault(between, []).append((identity, box, score, int(objects.labels[row])))
    return {index: _with(frames[index], more.get(index, [])) for index in order}


def _with(tracked: TrackedObjects, more: list[tuple[int, NDArray[np.float32], float, int]]) -> TrackedObjects:
    if not more:
        return tracked
    ids, boxes, scores, labels = zip(*more, strict=True)
    objects = tracked.objects
    masks = None if objects.masks is None else (*objects.masks, *(None for _ in more))
    joined = Detections(
        boxes=np.concatenate([objects.boxes, np.array(boxes, np.float32)]),
        scores=np.concatenate([objects.scores, np.array(scores, np.float32)]),
        labels=np.concatenate([objects.labels, np.array(labels, np.int64)]),
        names=objects.names,
        masks=masks,
    )
    order = np.argsort(-joined.scores, kind="stable")
    return TrackedObjects(
        ids=np.concatenate([tracked.ids, np.array(ids, np.int64)])[order],
        objects=joined.select(order),
        indices=np.concatenate([tracked.indices, np.full(len(more), -1)])[order],
        num_detections=tracked.num_detections,
    )
