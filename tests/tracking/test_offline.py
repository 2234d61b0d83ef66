"""Two passes over a video: what the second hands out, and that nobody is lost or invented on the way."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.shared_data import DATA, needs_data
from tests.tracking.make_tracking import (
    ColourEmbedder,
    SquareDetector,
    make_tracker,
    square_boxes,
    tracked_objects,
    write_frames,
)
from trackmill.models.association.offline import OfflineSettings
from trackmill.models.detectors.base import Detector
from trackmill.pipeline.evaluation.readers.coco_video import read_coco_video
from trackmill.pipeline.tracking.base import VideoModel
from trackmill.pipeline.tracking.frame_reader import FrameReader
from trackmill.pipeline.tracking.frames import open_frames
from trackmill.pipeline.tracking.offline import filled, track_offline
from trackmill.pipeline.tracking.run import TrackingStopped, track_video
from trackmill.pipeline.tracking.two_stage import TwoStage
from trackmill.pipeline.tracking.video_writer import VideoWriter
from trackmill.pipeline.tracking.writers import CocoWriter, MotWriter
from trackmill.schemas.detections import Detections, make_detections
from trackmill.schemas.errors import InputError
from trackmill.schemas.tracking import SourceFrame, TrackedObjects

FRAMES = 24


class Blinking(SquareDetector):
    """Does not see the first square in some frames."""

    def detect(self, images: Sequence[NDArray[np.uint8]], frames: Sequence[int] | None = None) -> list[Detections]:
        assert frames is not None
        found = super().detect(images, frames)
        return [each.select(np.arange(1, len(each))) if 6 <= frame < 14 else each for each, frame in zip(found, frames)]


def model(detector: Detector | None = None) -> TwoStage:
    # It forgets at once, so whoever was not seen comes back with another number.
    tracker = make_tracker()
    tracker = type(tracker)(init_score_thr=0.1, obj_score_thr=0.1, memo_tracklet_frames=1)
    return TwoStage(detector or Blinking(), ColourEmbedder(), tracker)


def rows_of(path: Path) -> list[tuple[int, int, float, float]]:
    lines = [line.split(",") for line in path.read_text().split()]
    return [(int(line[0]), int(line[1]), float(line[2]), float(line[3])) for line in lines]


def offline(tmp_path: Path, settings: OfflineSettings, using: VideoModel | None = None) -> list[tuple]:
    folder = write_frames(tmp_path / "seq", FRAMES)
    using = using or model()
    writer = MotWriter(str(tmp_path / "seq.txt"), (1,))
    reader = open_frames(str(folder))
    result = track_offline(reader, lambda: open_frames(str(folder)), using, [writer], settings, batch_size=5)
    assert result.num_frames == FRAMES and result.written == [str(tmp_path / "seq.txt")]
    return rows_of(tmp_path / "seq.txt")


def of_first_square(rows: list[tuple]) -> dict[int, int]:
    """Identity by frame of whoever is where the first square is."""
    return {
        frame: identity for frame, identity, x, y in rows if np.abs(square_boxes(frame - 1)[0, :2] - [x, y]).max() < 2.5
    }


def test_who_was_lost_online_is_one_offline(tmp_path: Path) -> None:
    folder = write_frames(tmp_path / "seq", FRAMES)
    writer = MotWriter(str(tmp_path / "online.txt"), (1,))
    track_video(open_frames(str(folder)), model(), [writer])
    online = of_first_square(rows_of(tmp_path / "online.txt"))
    assert len(set(online.values())) == 2
    rows = offline(tmp_path, OfflineSettings(similarity=0.8))
    joined = of_first_square(rows)
    assert len(set(joined.values())) == 1 and joined.keys() == online.keys()
    assert len(rows) == len(rows_of(tmp_path / "online.txt")), "no box is lost, none invented"
    assert len({identity for _, identity, _, _ in rows}) == 3


def test_gaps_are_filled_where_that_is_wanted(tmp_path: Path) -> None:
    rows = offline(tmp_path, OfflineSettings(similarity=0.8, fill_s=10.0))
    assert len(rows) == 3 * FRAMES
    assert len(set(of_first_square(rows).values())) == 1 and len(of_first_square(rows)) == FRAMES


def test_filled_boxes_are_no_detections(tmp_path: Path) -> None:
    folder = write_frames(tmp_path / "seq", FRAMES)
    writer = MotWriter(str(tmp_path / "seq.txt"), (1,))
    settings = OfflineSettings(similarity=0.8, fill_s=10.0)
    result = track_offline(open_frames(str(folder)), lambda: open_frames(str(folder)), model(), [writer], settings)
    assert result.num_tracked == result.num_detections == 3 * FRAMES - 8
    assert len(rows_of(tmp_path / "seq.txt")) == 3 * FRAMES


def test_a_video_that_is_gone_between_the_passes_leaves_nothing(tmp_path: Path) -> None:
    folder = write_frames(tmp_path / "seq", FRAMES)
    (tmp_path / "out").mkdir()

    def gone() -> FrameReader:
        raise FileNotFoundError("it is gone")

    with pytest.raises(FileNotFoundError):
        writer = VideoWriter(str(tmp_path / "out" / "seq.mp4"), 10)
        track_offline(open_frames(str(folder)), gone, model(), [writer], OfflineSettings())
    assert not any((tmp_path / "out").iterdir())


def test_who_needs_no_pictures_reads_the_video_once(tmp_path: Path) -> None:
    folder = write_frames(tmp_path / "seq", FRAMES)
    writer = MotWriter(str(tmp_path / "seq.txt"), (1,))
    result = track_offline(open_frames(str(folder)), pytest.fail, model(), [writer], OfflineSettings())
    assert result.written == [str(tmp_path / "seq.txt")]


@pytest.mark.parametrize("frames", [0, 3])
def test_a_second_pass_that_is_stopped_leaves_all_rows(tmp_path: Path, frames: int) -> None:
    folder, out = write_frames(tmp_path / "seq", FRAMES), tmp_path / "out"
    out.mkdir()

    def again() -> FrameReader:
        if not frames:
            raise KeyboardInterrupt
        return open_frames(str(folder))

    class Stopped(VideoWriter):
        def write(self, frame: SourceFrame, tracked: TrackedObjects) -> None:
            if frame.index == frames:
                raise KeyboardInterrupt
            super().write(frame, tracked)

    drawn = Stopped(str(out / "seq.mp4"), 10)
    rows = MotWriter(str(out / "seq.txt"), (1,))
    with pytest.raises(TrackingStopped) as stopped:
        track_offline(open_frames(str(folder)), again, model(), [drawn, rows], OfflineSettings(similarity=0.8))
    names = ["seq.partial.mp4", "seq.txt"] if frames else ["seq.txt"]
    assert sorted(each.name for each in out.iterdir()) == names
    assert sorted(stopped.value.kept) == [str(out / name) for name in names]
    assert stopped.value.num_frames == FRAMES and len(rows_of(out / "seq.txt")) == 3 * FRAMES - 8


def test_a_writer_that_cannot_keep_its_rows_does_not_cost_those_of_others(tmp_path: Path) -> None:
    folder, out = write_frames(tmp_path / "seq", FRAMES), tmp_path / "out"
    out.mkdir()

    class Full(MotWriter):
        def write(self, frame: SourceFrame, tracked: TrackedObjects) -> None:
            raise OSError(28, "No space left on device")

    def ctrl_c(count: int) -> None:
        raise KeyboardInterrupt

    writers = [Full(str(out / "full.txt"), (1,)), MotWriter(str(out / "seq.txt"), (1,))]
    with pytest.raises(TrackingStopped) as stopped:
        track_offline(open_frames(str(folder)), pytest.fail, model(), writers, OfflineSettings(), progress=ctrl_c)
    assert [each.name for each in out.iterdir()] == ["seq.partial.txt"]
    assert stopped.value.kept == [str(out / "seq.partial.txt")]


def test_a_first_pass_that_is_stopped_leaves_its_rows(tmp_path: Path) -> None:
    """Joined as far as they go; the drawn video would need the second pass, and no half of it is left."""
    folder, out = write_frames(tmp_path / "seq", FRAMES), tmp_path / "out"
    out.mkdir()
    done: list[int] = []

    def ctrl_c(count: int) -> None:
        done.append(count)
        if sum(done) == 20:
            raise KeyboardInterrupt

    def start() -> None:
        writers = [MotWriter(str(out / "seq.txt"), (1,)), CocoWriter(str(out / "seq.json"), "seq", ("square",), (1,))]
        drawn = VideoWriter(str(out / "seq.mp4"), 10)
        settings = OfflineSettings(similarity=0.8)
        reader = open_frames(str(folder))
        track_offline(reader, pytest.fail, model(), [*writers, drawn], settings, batch_size=5, progress=ctrl_c)

    with pytest.raises(TrackingStopped) as stopped:
        start()
    assert done == [5, 5, 5, 5] and stopped.value.num_frames == 20
    assert sorted(each.name for each in out.iterdir()) == ["seq.partial.json", "seq.partial.txt"]
    rows = rows_of(out / "seq.partial.txt")
    assert len(rows) == 3 * 20 - 8 and len(set(of_first_square(rows).values())) == 1
    (video,) = read_coco_video(str(out / "seq.partial.json"), str(out / "seq.partial.json")).videos
    assert video.video.num_frames == 20


def test_a_filled_box_lies_between_its_ends() -> None:
    here, there = np.array([[0, 0, 10, 20]], np.float32), np.array([[40, 8, 50, 28]], np.float32)
    other = np.array([[90, 90, 99, 99]], np.float32)
    frames = {
        0: tracked_objects(here, [4], scores=[0.9]),
        1: tracked_objects(other, [7], scores=[0.5]),
        3: tracked_objects(there, [4], scores=[0.6]),
    }
    times = {0: 0.0, 1: 0.25, 3: 1.0}
    made = filled(frames, times, 1.0)
    assert made[1].ids.tolist() == [4, 7] and made[1].indices.tolist() == [-1, 0]
    assert made[1].objects.boxes[0].tolist() == [10, 2, 20, 22] and made[1].objects.scores[0] == pytest.approx(0.6)
    assert [each.ids.tolist() for each in filled(frames, times, 0.9).values()] == [[4], [7], [4]]


def test_an_end_to_end_tracker_is_refused(tmp_path: Path) -> None:
    class Whole(VideoModel):
        names, category_ids, num_tracks = ("a",), (1,), 0

        def reset(self) -> None: ...

        def track(self, frames, times): ...

    with pytest.raises(InputError, match="Whole gives none"):
        offline(tmp_path, OfflineSettings(), Whole())
    assert not list(tmp_path.glob("*.txt*"))


def test_a_video_without_objects(tmp_path: Path) -> None:
    class Blind(SquareDetector):
        def detect(self, images, frames=None):
            return [make_detections([], names=self.names) for _ in images]

    assert offline(tmp_path, OfflineSettings(), model(Blind())) == []


@pytest.mark.slow
@needs_data("mot15")
@pytest.mark.timeout(2400)
@pytest.mark.parametrize(("name", "at_least"), [("PETS09-S2L1", 3.0), ("TUD-Stadtmitte", 0.0)])
def test_real_sequences_gain(name: str, at_least: float, tmp_path: Path) -> None:
    """Public detections, the packaged feature: HOTA against the online rule."""
    from trackmill import evaluate
    from trackmill.pipeline.tracking.build import make_video_model
    from trackmill.pipeline.tracking.detections import read_file_detections

    root = DATA / "mot15" / name
    video = root if (root / "img1").is_dir() else next(root.glob("*.mp4"))
    scores = {}
    for kind in ("online", "offline"):
        reader = open_frames(str(video))
        found = read_file_detections(str(root / "det" / "det.txt"), reader, None, None)
        using = make_video_model(model="masa_lite0_colour", weights="imagenet", detections=found, device="cpu")
        writer = MotWriter(str(tmp_path / kind / f"{name}.txt"), using.category_ids)
        if kind == "online":
            track_video(reader, using, [writer])
        else:
            track_offline(reader, lambda: open_frames(str(video)), using, [writer], OfflineSettings())
        report = evaluate(str(DATA / "mot15"), str(tmp_path / kind), "mot15", sequences=(name,))
        scores[kind] = report.metrics["HOTA"]
    assert scores["offline"] >= scores["online"] + at_least, scores


def test_the_command_and_a_part_of_a_video(tmp_path: Path) -> None:
    from tests.tracking.make_tracking import write_mot_detections
    from trackmill.jobs.track import main

    folder = write_frames(tmp_path / "seq", FRAMES)
    write_mot_detections(tmp_path / "det.txt", FRAMES)
    words = [
        "--video",
        str(folder),
        "--detections",
        str(tmp_path / "det.txt"),
        "--model",
        "masa_lite0",
        "--device",
        "cpu",
    ]
    words += ["--weights", "imagenet", "--start", "7", "--end", "18", "--save-video", "--tracker", "tao"]
    assert main([*words, "--output", str(tmp_path / "online")]) == 0
    assert main([*words, "--output", str(tmp_path / "offline"), "--offline", "--set", "offline.share=0.95"]) == 0
    boxes = [
        sorted((frame, x, y) for frame, _, x, y in rows_of(tmp_path / kind / "seq.txt"))
        for kind in ("online", "offline")
    ]
    assert boxes[0] == boxes[1] and {frame for frame, _, _ in boxes[0]} == set(range(7, 19))
    assert (tmp_path / "offline" / "seq.mp4").stat().st_size > 0
    assert main([*words, "--output", str(tmp_path / "x"), "--offline", "--set", "offline.shares=1"]) == 2
