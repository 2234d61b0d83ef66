"""Frames of videos, folders and sequences: which they are, how they are numbered, and what happens to broken ones."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.make_media import make_video
from tests.tracking.make_tracking import make_frame, write_frames
from trackmill.pipeline.media.videos import VideoReader
from trackmill.pipeline.tracking.frame_reader import ReadLimits
from trackmill.pipeline.tracking.frames import open_frames
from trackmill.pipeline.tracking.picture_frames import PictureFrames


def test_every_frame_of_a_video(tmp_path: Path) -> None:
    path = make_video(tmp_path / "clip.mp4", 10, 24)
    reader = open_frames(str(path))
    frames = list(reader)
    with open(path, "rb") as handle:
        exact = list(VideoReader(handle, "clip", max_pixels=10**6, longest_side=10**4).read(range(10)))
    assert (reader.name, reader.num_frames, reader.fps, reader.problems) == ("clip", 10, 24, [])
    assert [(frame.index, frame.number) for frame in frames] == [(i, i + 1) for i in range(10)]
    for frame, expected in zip(frames, exact, strict=True):
        assert (frame.image == expected.image).all()
        assert frame.time_s == expected.time_s
    reader.close()


@pytest.mark.parametrize("keep", [0.4, 0.7])
def test_a_truncated_video_gives_what_is_there(tmp_path: Path, keep: float) -> None:
    path = make_video(tmp_path / "clip.mp4", 40, 24, faststart=True)
    whole = list(open_frames(str(path)))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    reader = open_frames(str(path))
    frames = list(reader)
    assert 0 < len(frames) < 40
    assert reader.num_frames == 40, "the header's promise"
    for frame, expected in zip(frames, whole):
        assert (frame.image == expected.image).all()
    (problem,) = reader.problems
    assert "ends early" in problem
    assert "clip.mp4" in problem


def test_pictures_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for number in (1, 2, 10, 9):
        Image.fromarray(make_frame(0, 20 + number, 30)).save(tmp_path / f"shot_{number}.png")
    (tmp_path / "notes.txt").write_text("not a picture")
    reader = open_frames(str(tmp_path))
    frames = list(reader)
    assert [frame.file_name for frame in frames] == [f"shot_{number}.png" for number in (1, 2, 9, 10)]
    assert [frame.image.shape[0] for frame in frames] == [21, 22, 29, 30], "each at its own size"
    assert [frame.number for frame in frames] == [1, 2, 3, 4]
    assert reader.file_names == {"shot_1.png": 0, "shot_2.png": 1, "shot_9.png": 2, "shot_10.png": 3}
    assert reader.name == tmp_path.name


def test_a_mot_sequence_keeps_the_numbers_of_its_files(tmp_path: Path) -> None:
    write_frames(tmp_path / "seq" / "img1", 2, first=7)
    write_frames(tmp_path / "seq" / "img1", 1, first=30)
    (tmp_path / "seq" / "seqinfo.ini").write_text("[Sequence]\nname=x\nframeRate=14\nseqLength=900\n")
    reader = open_frames(str(tmp_path / "seq"))
    assert (reader.name, reader.fps, reader.num_frames) == ("seq", 14, 3)
    assert [(frame.index, frame.number) for frame in reader] == [(0, 7), (1, 8), (2, 30)]


def test_a_sequence_kept_as_a_video(tmp_path: Path) -> None:
    make_video(tmp_path / "seq" / "anything.mp4", 3)
    (tmp_path / "seq" / "det").mkdir()
    (tmp_path / "seq" / "det" / "det.txt").write_text("")
    assert len(list(open_frames(str(tmp_path / "seq")))) == 3


def test_a_broken_picture_is_skipped_and_told(tmp_path: Path) -> None:
    write_frames(tmp_path, 4)
    data = (tmp_path / "000002.png").read_bytes()
    (tmp_path / "000002.png").write_bytes(data[: len(data) // 2])
    reader = open_frames(str(tmp_path))
    assert [frame.index for frame in reader] == [0, 2, 3]
    (problem,) = reader.problems
    assert "000002.png" in problem


def test_one_picture(tmp_path: Path) -> None:
    write_frames(tmp_path, 1)
    (frame,) = open_frames(str(tmp_path / "000001.png"))
    assert (frame.image == make_frame(0)).all()


def test_limits_are_kept(tmp_path: Path) -> None:
    write_frames(tmp_path, 1)
    reader = open_frames(str(tmp_path), ReadLimits(max_pixels=50))
    assert isinstance(reader, PictureFrames)
    assert list(reader) == []
    assert "max_pixels" in reader.problems[0]
    with pytest.raises(ValueError, match="max_pixels"):
        open_frames(str(make_video(tmp_path / "clip.mp4", 2)), ReadLimits(max_pixels=50))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"notes.txt": b"x"}, "neither pictures nor a video"),
        ({"a.mp4": b"x", "b.mp4": b"x"}, "2 videos and no pictures"),
        ({"img1/one.png": b"x"}, "is called by its number"),
        ({"img1/01.png": b"x", "img1/1.jpg": b"x"}, "are both frame 1"),
        ({"seqinfo.ini": b"[Sequence]\nframeRate=0\n", "img1/1.png": b"x"}, "frameRate is 0"),
        ({"seqinfo.ini": b"nothing", "img1/1.png": b"x"}, "seqinfo.ini: cannot be used"),
    ],
)
def test_what_cannot_be_tracked_is_told(tmp_path: Path, files: dict[str, bytes], message: str) -> None:
    for name, data in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match=message):
        open_frames(str(tmp_path))


def test_no_video_at_all(tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"")
    with pytest.raises(ValueError, match="empty"):
        open_frames(str(tmp_path / "clip.mp4"))
    with pytest.raises(FileNotFoundError):
        open_frames(str(tmp_path / "gone.mp4"))


def test_images_are_uint8_rgb(tmp_path: Path) -> None:
    Image.fromarray(make_frame(0)).convert("L").save(tmp_path / "gray.png")
    (frame,) = open_frames(str(tmp_path))
    assert frame.image.dtype == np.uint8
    assert frame.image.shape == (60, 100, 3)


def test_a_picture_that_takes_too_much_memory_is_left_out_by_itself(tmp_path: Path) -> None:
    for number, side in enumerate((20, 6000, 20)):
        Image.new("RGB", (side, side), (number, 0, 0)).save(tmp_path / f"{number}.png")
    reader = open_frames(str(tmp_path), ReadLimits(item_memory_bytes=64 << 20))
    with contextlib.closing(reader):
        assert [frame.image[0, 0, 0] for frame in reader] == [0, 2]
    (problem,) = reader.problems
    assert problem.startswith(str(tmp_path / "1.png"))
    assert "more memory than `read.item_memory_bytes` = 67108864" in problem


def test_a_video_that_takes_too_long_to_open_says_by_which_limit(tmp_path: Path) -> None:
    video = make_video(tmp_path / "clip.mp4", 2)
    with pytest.raises(ValueError, match=r"clip.mp4: reading it takes longer than `read.item_timeout_s` = 1e-06"):
        open_frames(str(video), ReadLimits(item_timeout_s=1e-6))


def test_frames_are_the_same_here_and_in_a_child(tmp_path: Path) -> None:
    video = make_video(tmp_path / "clip.mp4", 12)
    found = []
    for isolate in (True, False):
        with contextlib.closing(open_frames(str(video), ReadLimits(isolate=isolate))) as reader:
            found.append([(frame.index, frame.time_s, frame.image.tobytes()) for frame in reader])
    assert found[0] == found[1]
    assert len(found[0]) == 12
