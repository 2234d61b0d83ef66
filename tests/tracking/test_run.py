"""One video from frames to files: batches, memory, gaps, and everything that can go wrong on the way."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.make_media import make_video
from tests.tracking.make_tracking import (
    ColourEmbedder,
    SquareDetector,
    make_frame,
    make_tracker,
    source_frame,
    square_boxes,
    write_frames,
    write_mot_detections,
)
from trackmill.models.detectors.base import Detector
from trackmill.models.detectors.segmenter import BoxSegmenter
from trackmill.models.embedders.base import Embedder
from trackmill.pipeline.formats.mot_text import parse_mot_text
from trackmill.pipeline.tracking.base import VideoModel
from trackmill.pipeline.tracking.detection_files import read_detections
from trackmill.pipeline.tracking.frame_reader import FrameReader
from trackmill.pipeline.tracking.frames import open_frames
from trackmill.pipeline.tracking.run import TrackingResult, track_video
from trackmill.pipeline.tracking.timing import StageTimes, TrackingProgress
from trackmill.pipeline.tracking.two_stage import TwoStage
from trackmill.pipeline.tracking.writers import MotWriter, ParquetWriter
from trackmill.schemas.boxes import Boxes
from trackmill.schemas.detections import Detections, make_detections
from trackmill.schemas.errors import InputError
from trackmill.schemas.masks import CroppedMask, mask_box
from trackmill.schemas.tracking import SourceFrame, TrackedObjects


class Fixed(Detector):
    """The same detections in every frame."""

    names = ("object",)
    category_ids = (1,)

    def __init__(self, found: Detections) -> None:
        self._found = found

    def detect(self, images: Sequence[NDArray[np.uint8]], frames: Sequence[int] | None = None) -> list[Detections]:
        return [self._found] * len(images)


def two_stage(
    detector: Detector | None = None, embedder: Embedder | None = None, segmenter: BoxSegmenter | None = None
) -> TwoStage:
    return TwoStage(detector or SquareDetector(), embedder or ColourEmbedder(), make_tracker(), segmenter)


def track(folder: Path, output: Path, model: VideoModel, batch_size: int = 4) -> TrackingResult:
    return track_video(open_frames(str(folder)), model, [MotWriter(str(output), (1,))], batch_size=batch_size)


def test_each_object_keeps_its_identity(tmp_path: Path) -> None:
    result = track(write_frames(tmp_path / "in", 10), tmp_path / "out.txt", two_stage())
    assert (result.num_frames, result.num_detections, result.num_tracked, result.num_tracks) == (10, 30, 30, 3)
    assert result.problems == []
    assert result.written == [str(tmp_path / "out.txt")]
    rows = parse_mot_text((tmp_path / "out.txt").read_bytes(), "out.txt")
    paths = {identity: rows.boxes[rows.ids == identity] for identity in range(3)}
    truth = [np.stack([square_boxes(step)[square] for step in range(10)]) for square in range(3)]
    assert sorted(map(np.ndarray.tolist, paths.values())) == sorted(map(np.ndarray.tolist, truth))


def test_batches_change_nothing(tmp_path: Path) -> None:
    write_frames(tmp_path / "in", 7)
    texts = []
    for size in (1, 3, 7, 50):
        embedder = ColourEmbedder()
        track(tmp_path / "in", tmp_path / "out.txt", two_stage(embedder=embedder), batch_size=size)
        texts.append((tmp_path / "out.txt").read_text())
        assert sum(embedder.batches) == 7
        assert max(embedder.batches) == min(size, 7)
    assert len(set(texts)) == 1


def test_detections_from_a_file(tmp_path: Path) -> None:
    """A sequence whose files count from 5: the file's numbers belong to the names, and so do the results'."""
    write_frames(tmp_path / "seq" / "img1", 4, first=5)
    det = write_mot_detections(tmp_path / "seq" / "det" / "det.txt", 4, first=5)
    reader = open_frames(str(tmp_path / "seq"))
    found = read_detections(str(det), reader.name, reader.file_names)
    track_video(reader, two_stage(found), [MotWriter(str(tmp_path / "out.txt"), (1,))])
    rows = parse_mot_text((tmp_path / "out.txt").read_bytes(), "out.txt")
    assert np.unique(rows.frames).tolist() == [5, 6, 7, 8]
    assert np.unique(rows.ids).tolist() == [0, 1, 2]


def test_frames_without_detections(tmp_path: Path) -> None:
    write_frames(tmp_path / "in", 5)
    Image.fromarray(np.full((60, 100, 3), 128, np.uint8)).save(tmp_path / "in" / "000003.png")
    result = track(tmp_path / "in", tmp_path / "out.txt", two_stage(), batch_size=2)
    assert (result.num_detections, result.num_tracks) == (12, 3), "identities survive the gap"
    result = track(tmp_path / "in", tmp_path / "none.txt", two_stage(Fixed(make_detections([], names=("object",)))))
    assert (result.num_frames, result.num_detections, result.num_tracks) == (5, 0, 0)
    assert (tmp_path / "none.txt").read_text() == ""


def test_boxes_outside_the_frame_are_kept_as_they_are(tmp_path: Path) -> None:
    boxes = [[-40, -30, 20, 20], [90, 50, 300, 200], [500, 500, 520, 530]]
    result = track(write_frames(tmp_path / "in", 2), tmp_path / "out.txt", two_stage(Fixed(make_detections(boxes))))
    assert result.num_detections == 6
    rows = parse_mot_text((tmp_path / "out.txt").read_bytes(), "out.txt")
    assert [-40, -30, 20, 20] in rows.boxes.tolist()


def test_frames_of_different_sizes(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for step, (height, width) in enumerate([(60, 100), (60, 100), (80, 140), (60, 100)]):
        Image.fromarray(make_frame(step, height, width)).save(tmp_path / "in" / f"{step}.png")
    output = tmp_path / "out.parquet"
    writer = ParquetWriter(str(output), ("square",), (1,))
    result = track_video(open_frames(str(tmp_path / "in")), two_stage(), [writer])
    assert (result.num_frames, result.num_tracks) == (4, 3)


class Endless(FrameReader):
    """Frames that are made as they are asked for; `alive` counts those that someone still holds."""

    def __init__(self, count: int) -> None:
        super().__init__("endless", 10, count)
        self.alive = self.most = 0

    def __iter__(self) -> Iterator[SourceFrame]:
        for index in range(self.num_frames):
            frame = source_frame(index, make_frame(index % 10))
            self.alive += 1
            weakref.finalize(frame.image, self._gone)
            self.most = max(self.most, self.alive)
            yield frame
            del frame

    def _gone(self) -> None:
        self.alive -= 1


def test_memory_does_not_grow_with_the_video(tmp_path: Path) -> None:
    reader = Endless(60)
    track_video(reader, two_stage(), [MotWriter(str(tmp_path / "out.txt"), (1,))], batch_size=4)
    assert reader.most <= 2 * 4, "at most the batch in hand and the one being read"


def test_a_truncated_video_is_tracked_as_far_as_it_goes(tmp_path: Path) -> None:
    path = make_video(tmp_path / "clip.mp4", 40, faststart=True)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    reader = open_frames(str(path))
    boxes = make_detections([[10, 10, 30, 30]])
    result = track_video(reader, two_stage(Fixed(boxes)), [MotWriter(str(tmp_path / "out.txt"), (1,))])
    assert 0 < result.num_frames < 40
    assert len((tmp_path / "out.txt").read_text().splitlines()) == result.num_frames
    assert "ends early" in result.problems[0]


def test_nothing_readable_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "1.png").write_bytes(b"not a picture")
    with pytest.raises(ValueError, match=r"1\.png"):
        track(tmp_path / "in", tmp_path / "out.txt", two_stage())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]


def test_a_failure_leaves_no_file(tmp_path: Path) -> None:
    class Failing(ColourEmbedder):
        def embed(self, images: Sequence[NDArray[np.uint8]], boxes: Sequence[Boxes]) -> list[NDArray[np.float32]]:
            if len(self.batches) == 2:
                raise ValueError("out of luck")
            return super().embed(images, boxes)

    write_frames(tmp_path / "in", 10)
    with pytest.raises(ValueError, match="out of luck"):
        track(tmp_path / "in", tmp_path / "out" / "a.txt", two_stage(embedder=Failing()), batch_size=2)
    assert list((tmp_path / "out").iterdir()) == []


def test_masks_are_cut_for_what_is_tracked(tmp_path: Path) -> None:
    class Whole(BoxSegmenter):
        def segment(
            self, images: Sequence[NDArray[np.uint8]], boxes: Sequence[Boxes]
        ) -> list[tuple[CroppedMask | None, ...]]:
            return [
                tuple(
                    CroppedMask(x=int(x0), y=int(y0), height=int(y1 - y0), width=int(x1 - x0), counts="0T4")
                    for x0, y0, x1, y1 in each.tolist()
                )
                for each in boxes
            ]

    seen: list[TrackedObjects] = []

    class Watching(MotWriter):
        def write(self, frame: SourceFrame, tracked: TrackedObjects) -> None:
            seen.append(tracked)
            super().write(frame, tracked)

    write_frames(tmp_path / "in", 3)
    model = two_stage(segmenter=Whole())
    track_video(open_frames(str(tmp_path / "in")), model, [Watching(str(tmp_path / "out.txt"), (1,))])
    assert len(seen) == 3
    for tracked in seen:
        assert tracked.objects.masks is not None
        assert [list(mask_box(mask)) for mask in tracked.objects.masks] == tracked.objects.boxes.tolist()


def test_the_progress_line_shows_every_stage() -> None:
    times = StageTimes()
    progress = TrackingProgress(200, times)
    for stage, seconds, frames in (("decode", 0.1, 20), ("embed", 8, 16), ("associate", 0.0, 0)):
        times.seconds[stage], times.num_frames[stage] = seconds, frames
    progress.done = 16
    assert progress._line(10) == "tracked 16 of 200 frames, 1.6/s, 115 s left (decode 200/s, embed 2/s)"
    unknown = TrackingProgress(0, times)
    unknown.done = 160
    assert unknown._line(10) == "tracked 160 frames, 16/s (decode 200/s, embed 2/s)"


def test_stages_stand_in_the_order_of_their_first_use() -> None:
    times = StageTimes()
    for name in ("decode", "warp", "decode"):
        with times.stage(name, 2):
            pass
    with times.stage_unless_counted("track", 2), times.stage("link", 2):
        pass
    with times.stage_unless_counted("track", 3):
        pass
    assert times.num_frames == {"decode": 4, "warp": 2, "link": 2, "track": 3}
    assert list(times.seconds) == ["decode", "warp", "link", "track"]


class Careless(VideoModel):
    """Gives whatever results it was made with."""

    names = ("object",)
    category_ids = (1,)
    num_tracks = 0

    def __init__(self, results: list[TrackedObjects]) -> None:
        self.results = results

    def reset(self) -> None: ...

    def track(self, frames: Sequence[SourceFrame], times: StageTimes) -> list[TrackedObjects]:
        return self.results


@pytest.mark.parametrize(
    ("results", "message"),
    [
        ([], r"Careless\.track gave 0 results for 2 frames"),
        ([TrackedObjects.of(make_detections([[0, 0, 1, 1]], None, [1]), [0])] * 2, "frame 0: label 1 is none of its 1"),
    ],
)
def test_results_that_break_the_contract_are_refused(
    tmp_path: Path, results: list[TrackedObjects], message: str
) -> None:
    write_frames(tmp_path / "in", 2)
    with pytest.raises(InputError, match=message):
        track(tmp_path / "in", tmp_path / "out" / "a.txt", Careless(results))
    assert list((tmp_path / "out").iterdir()) == []
