"""How well a video model tracks the sequences of a MOTChallenge data set from their pictures: HOTA, MOTA, IDF1.

    benchmark = TrackingBenchmark(gt="MOT17/train", frames="301:")       # tracks and scores the rest from frame 301 on
    benchmark.check()                                                    # is everything there? Reads a frame of each
    report = benchmark.measure(model)                                    # `VideoModel`: report.metrics["HOTA"], ...

For evaluation while training: the numbers are those that `trackmill track` and `trackmill evaluate` give, since the
same tracks go through the same text. Each sequence begins at the first frame that counts: of frames before it the model
sees nothing.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from tempfile import TemporaryDirectory

import numpy as np

from trackmill.pipeline.evaluation.frame_range import frame_range
from trackmill.pipeline.evaluation.readers.mot_layout import choose_sequences, find_sequences
from trackmill.pipeline.evaluation.report.report import Report
from trackmill.pipeline.evaluation.request import Options
from trackmill.pipeline.evaluation.run import evaluate
from trackmill.pipeline.evaluation.tracks import Tracks, make_tracks
from trackmill.pipeline.formats.errors import BadTracks
from trackmill.pipeline.storage.credentials import redact
from trackmill.pipeline.storage.urls import dirname, join
from trackmill.pipeline.tracking.base import VideoModel
from trackmill.pipeline.tracking.frame_reader import FrameReader, ReadLimits
from trackmill.pipeline.tracking.frames import open_frames
from trackmill.pipeline.tracking.picture_frames import PictureFrames
from trackmill.pipeline.tracking.run import track_video
from trackmill.pipeline.tracking.timing import StageTimes
from trackmill.pipeline.tracking.writers import MotWriter
from trackmill.schemas.config import build
from trackmill.schemas.tracking import SourceFrame

log = logging.getLogger("trackmill")


def tracked_rows(model: VideoModel, frames: Iterable[SourceFrame], batch_size: int = 1) -> Tracks:
    """Track these frames as one video, which is kept in memory as rows.

    Args:
        model: it is reset first.
        frames: in their order; any iterable, such as a `FrameReader`.
        batch_size: frames that the model gets at once.

    Returns:
        One row for each object that has an identity, ascending by frame: `frames` are numbers less 1, labels are 1.
    """
    model.reset()
    times, left = StageTimes(), iter(frames)
    numbers, ids, boxes, scores = [], [], [], []
    while batch := list(islice(left, batch_size)):
        for frame, found in zip(batch, model.track(batch, times), strict=True):
            numbers.append(np.full(len(found), frame.number - 1))
            ids.append(found.ids)
            boxes.append(found.objects.boxes)
            scores.append(found.objects.scores)
    columns = [np.concatenate(each) if each else np.zeros(0) for each in (numbers, ids, boxes, scores)]
    return make_tracks(columns[0], columns[1], columns[2], scores=columns[3])


@dataclass(frozen=True, kw_only=True)
class TrackingBenchmark:
    """What is tracked, and how it is scored.

    Args:
        gt: URL of ground truth in MOTChallenge's layout, see `trackmill.pipeline.evaluation.run.evaluate`.
        pictures: URL of the folder with `NAME/img1`, a video in `NAME`, or `NAME.mp4`; "": beside the ground truth.
        benchmark: whose rules count: `mot17`, `mot20`, `dancetrack`, `mot15`, ...
        sequences: only these; empty: all.
        frames: only these, FROM:TO from 1, or shares such as `0.5:`, as `trackmill evaluate --frames`; "": all.
        gt_file: name of the file in each `gt` folder.
        read: limits of reading pictures.
        batch_size: frames that the model gets at once.
    """

    gt: str
    pictures: str = ""
    benchmark: str = "mot17"
    sequences: Sequence[str] = ()
    frames: str = ""
    gt_file: str = "gt.txt"
    read: ReadLimits = field(default_factory=ReadLimits)
    batch_size: int = 1

    def check(self) -> None:
        """Look at what will be read: the options, each ground truth, and a frame of each sequence.

        Raises:
            ValueError: something is missing or wrong; names it.
            OSError: it cannot be read.
        """
        self._options()
        for name in self._names():
            find_sequences(self.gt, self.gt_file)[name].read()
            with contextlib.closing(self._open(name)) as reader:
                if next(iter(reader), None) is None:
                    why = "; ".join(reader.problems[:1]) or f"frames {self.frames or 'from 1 on'}"
                    raise BadTracks(f"{name}: there is no frame to track: {why}")

    def measure(self, model: VideoModel) -> Report:
        """Track every sequence, and score all of them.

        Args:
            model: in evaluation mode. It is reset before each sequence, and after the last one.

        Raises:
            ValueError, OSError: as `check`.
        """
        with TemporaryDirectory(prefix="trackmill-") as folder:
            for name in self._names():
                with contextlib.closing(self._open(name)) as reader:
                    written = MotWriter(join(folder, f"{name}.txt"), (1,))
                    result = track_video(reader, model, [written], batch_size=self.batch_size)
                for problem in result.problems:
                    log.warning("%s: a frame is not tracked, and its objects count as missed: %s", name, problem)
            model.reset()
            return evaluate(self.benchmark, self.gt, folder, self._options())

    def _options(self) -> Options:
        values = {"sequences": tuple(self.sequences) or None, "frames": self.frames, "gt_file": self.gt_file}
        return build(Options, values, "tracking benchmark")

    def _names(self) -> list[str]:
        return choose_sequences(find_sequences(self.gt, self.gt_file), list(self.sequences) or None, self.gt)

    def _open(self, name: str) -> FrameReader:
        """The pictures of one sequence: in its folder, or a video that is called like it."""
        truth = find_sequences(self.gt, self.gt_file)[name]
        if self.pictures:
            places = [join(self.pictures, name), join(self.pictures, f"{name}.mp4")]
        else:
            if truth.member or not truth.is_gt_layout:
                raise BadTracks(f"{redact(truth.url)}: there are no pictures beside it; say where they are")
            places = [dirname(dirname(truth.url))]
        for place in places:
            with contextlib.suppress(FileNotFoundError):
                return _Excerpt(open_frames(place, self.read), frame_range(self.frames, truth))
        raise BadTracks(f"{name}: no pictures at {' or '.join(map(redact, places))}")


class _Excerpt(FrameReader):
    """Some frames of another reader.

    Args:
        whole: the reader; closed with this one.
        frames: numbers of the first and the last; None: all.
    """

    def __init__(self, whole: FrameReader, frames: tuple[int, int] | None) -> None:
        super().__init__(whole.name, whole.fps, whole.num_frames)
        self._whole, self.problems = whole, whole.problems
        self._first = frames[0] if frames else 1
        self._last = frames[1] if frames else None
        if frames and isinstance(whole, PictureFrames):
            whole.keep_numbers(self._first, self._last)  # pictures before the first one need not be decoded
            self.num_frames = whole.num_frames

    def __iter__(self) -> Iterator[SourceFrame]:
        for frame in self._whole:
            if self._last is not None and frame.number > self._last:
                return
            if frame.number >= self._first:
                yield frame

    def close(self) -> None:
        """Close the other reader."""
        self._whole.close()
