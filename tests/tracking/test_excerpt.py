"""A part of a video: frames by number and by second, with the numbers and times of the whole video."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import av
import pytest

from tests.make_media import make_video
from tests.tracking.make_tracking import write_frames, write_mot_detections
from trackmill.jobs.track import main
from trackmill.pipeline.formats.mot_text import parse_mot_text
from trackmill.pipeline.media.videos import VideoReader
from trackmill.pipeline.tracking.excerpt import check_order, keep_excerpt, moment
from trackmill.pipeline.tracking.frames import open_frames
from trackmill.schemas.errors import InputError

MODEL = '''
import numpy as np
from trackmill.schemas.detections import make_detections
from trackmill.schemas.tracking import TrackedObjects

class One:
    """One object that stands still."""

    names, category_ids, num_tracks = ("object",), (1,), 1

    def reset(self):
        pass

    def track(self, frames, times):
        return [TrackedObjects.of(make_detections([[1, 1, 30, 30]]), np.zeros(1, np.int64)) for _ in frames]
'''


@pytest.fixture
def one_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sequence[str]:
    """Options of a model that needs nothing."""
    (tmp_path / "one_model.py").write_text(MODEL)
    monkeypatch.syspath_prepend(tmp_path)
    return ["--model", "one_model:One", "--device", "cpu"]


@pytest.fixture(params=["video", "pictures"])
def clip(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Forty frames at 25 a second."""
    if request.param == "video":
        return make_video(tmp_path / "clip.mp4", 40, fps=25)
    return write_frames(tmp_path / "clip", 40)


# first and last frame that are wanted -> numbers that are read
PARTS = [
    ("5", "7", [5, 6, 7]),
    ("39", None, [39, 40]),
    (None, "2", [1, 2]),
    ("7", "7", [7]),
    ("1.5s", None, [39, 40]),  # frame 1 is shown at 0 s, frame 38 at 1.48 s, frame 39 at 1.52 s
    ("0.2s", "0.32s", [6, 7, 8]),  # at 0.2, 0.24 and 0.28 s; the one at 0.32 s is not before it
    (None, "0.05s", [1, 2]),
    ("0.2s", "7", [6, 7]),
    ("38", "100", [38, 39, 40]),
]


@pytest.mark.parametrize(("start", "end", "numbers"), PARTS)
def test_numbers_and_times_stay_those_of_the_whole(
    clip: Path, start: str | None, end: str | None, numbers: list[int]
) -> None:
    whole = {frame.number: frame for frame in open_frames(str(clip))}
    reader = open_frames(str(clip))
    keep_excerpt(reader, moment(start) if start else None, moment(end) if end else None)
    frames = list(reader)
    assert [frame.number for frame in frames] == numbers and reader.num_frames == len(numbers)
    assert not reader.problems
    for frame in frames:
        same = whole[frame.number]
        assert (frame.index, frame.time_s, frame.file_name) == (same.index, same.time_s, same.file_name)
        assert (frame.image == same.image).all()
    assert reader.begin_s == pytest.approx(frames[0].time_s)


def test_the_same_part_is_read_again(clip: Path) -> None:
    reader, again = open_frames(str(clip)), open_frames(str(clip))
    keep_excerpt(reader, moment("5"), moment("0.32s"))
    reader.name = "other"
    again.read_as(reader)
    first, second = list(reader), list(again)
    assert [(frame.index, frame.number, frame.time_s) for frame in first] == [
        (frame.index, frame.number, frame.time_s) for frame in second
    ]
    assert [frame.number for frame in second] == [5, 6, 7, 8] and again.name == "other"


def test_frames_before_the_part_are_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_video(tmp_path / "clip.mp4", 200, fps=25)
    with path.open("rb") as handle:
        reader = VideoReader(handle, "clip", max_pixels=10**8, longest_side=10**6)
        list(reader.read(range(reader.index_at(7.5), reader.num_frames)))
        assert reader.decoded < 60, "decoding begins at the keyframe before"
        reader.close()


@pytest.mark.parametrize(
    ("start", "end", "message"),
    [
        ("41", None, "--start 41: holds no frame of clip, which has frames 1 to 40 (1.6 s)"),
        ("1.7s", None, "--start 1.7s: holds no frame of clip"),
        ("9", "0.2s", "--start 9 --end 0.2s: holds no frame"),
    ],
)
def test_a_part_without_a_frame_is_an_error(clip: Path, start: str, end: str | None, message: str) -> None:
    with pytest.raises(InputError) as error:
        keep_excerpt(open_frames(str(clip)), moment(start), moment(end) if end else None)
    assert message in str(error.value)


@pytest.mark.parametrize("text", ["0", "-3", "12.5", "s", "1e3s", "1:30", "99999999999", ".s", ""])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=r"write 250, or 12\.5s"):
        moment(text)


@pytest.mark.parametrize(("start", "end"), [("5", "4"), ("2s", "1.5s"), ("2s", "2s")])
def test_an_end_before_the_start(start: str, end: str) -> None:
    with pytest.raises(InputError, match=f"--end {end} lies before --start {start}"):
        check_order(moment(start), moment(end))


def test_the_job_tracks_a_part(clip: Path, one_model: Sequence[str], capsys: pytest.CaptureFixture[str]) -> None:
    output = clip.parent / "out"
    arguments = ["--video", clip, "--output", output, "--save-video", "--start", "11", "--end", "20", *one_model]
    assert main([*map(str, arguments)]) == 0
    rows = parse_mot_text((output / "clip.txt").read_bytes(), "clip")
    assert rows.frames.tolist() == list(range(11, 21))
    assert "clip: 10 frames, 10 detections" in capsys.readouterr().out
    with av.open(str(output / "clip.mp4")) as container:
        times = [frame.time for frame in container.decode(video=0)]
    assert len(times) == 10 and times[0] == 0 and times[-1] == pytest.approx(0.36, abs=0.01)


def test_mistakes_come_before_the_work(
    clip: Path, one_model: Sequence[str], capsys: pytest.CaptureFixture[str]
) -> None:
    fine = ["--video", str(clip), "--output", str(clip.parent / "out"), *one_model]
    for wrong, message in (
        (["--start", "12.5"], "neither a frame number from 1 nor seconds: write 250, or 12.5s"),
        (["--start", "9", "--end", "3"], "--end 3 lies before --start 9"),
        (["--start", "41"], "which has frames 1 to 40"),
    ):
        assert main([*fine, *wrong]) == 2
        assert message in capsys.readouterr().err
    assert not (clip.parent / "out").exists()


def test_detections_of_a_file_keep_their_frames(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("timm")
    write_frames(tmp_path / "seq" / "img1", 8)
    det = write_mot_detections(tmp_path / "det.txt", 8)
    arguments = ["--video", tmp_path / "seq", "--detections", det, "--output", tmp_path / "out"]
    small = ["--model", "masa_lite0", "--set", "size.long_side=64", "--device", "cpu"]
    assert main([*map(str, arguments), *small, "--start", "4", "--end", "6"]) == 0
    printed = capsys.readouterr()
    rows = parse_mot_text((tmp_path / "out" / "seq.txt").read_bytes(), "seq")
    assert rows.frames.tolist() == [frame for frame in (4, 5, 6) for _ in range(3)]
    wanted = parse_mot_text(det.read_bytes(), "det", identities=False)
    assert sorted(rows.boxes[rows.frames == 4].tolist()) == sorted(wanted.boxes[wanted.frames == 4].tolist())
    assert "were not read" not in printed.err, "what was left out on purpose is no reason for a note"
    assert main([*map(str, arguments), *small, "--start", "4", "--end", "6", "--offline", "--save-video"]) == 0
    rows = parse_mot_text((tmp_path / "out" / "seq.txt").read_bytes(), "seq")
    assert rows.frames.tolist() == [frame for frame in (4, 5, 6) for _ in range(3)]
