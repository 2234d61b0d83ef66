"""Folders of YOLO label files as detections."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.make_media import make_video
from tests.tracking.make_tracking import square_boxes, write_frames
from trackmill.jobs.track import main
from trackmill.pipeline.formats.mot_text import parse_mot_text
from trackmill.pipeline.tracking.yolo_labels import read_yolo_labels
from trackmill.schemas.errors import InputError


def image(height: int = 60, width: int = 100) -> np.ndarray:
    return np.zeros((height, width, 3), np.uint8)


def write(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))


def test_boxes_are_shares_of_the_frame(tmp_path: Path) -> None:
    write(tmp_path / "clip_1.txt", "0 0.5 0.5 0.2 0.4 0.75", "2 0.1 0.1 0.2 0.2", "")
    write(tmp_path / "clip_000003.txt", "2 0.5 0.5 1 1 0.3 17")
    write(tmp_path / "other_1.txt", "0 0.5 0.5 1 1")
    write(tmp_path / "classes.txt", "person", "bicycle", "car")
    found = read_yolo_labels(str(tmp_path), "clip", {})
    assert found.names == ("person", "bicycle", "car") and found.category_ids == (1, 2, 3)
    first, second, third = found.detect([image()] * 3)
    assert np.allclose(first.boxes, [[40, 18, 60, 42], [0, 0, 20, 12]], atol=1e-4)
    assert first.labels.tolist() == [0, 2] and first.scores.tolist() == [0.75, 1]
    assert len(second) == 0 and third.scores.tolist() == pytest.approx([0.3])
    assert np.allclose(found.detect([image(10, 10)], [0])[0].boxes[0], [4, 3, 6, 7], atol=1e-5)
    assert len(found) == 3 and found.frame_numbers == [1, 3]
    assert len(read_yolo_labels(str(tmp_path), "clip", {}, 0.5)) == 2


def test_texts_that_are_called_like_pictures(tmp_path: Path) -> None:
    write(tmp_path / "frame_10.txt", "0 0.5 0.5 0.2 0.4 0.75")
    found = read_yolo_labels(str(tmp_path), "seq", {"frame_9.jpg": 0, "frame_10.jpg": 1})
    assert found.frame_numbers == [2] and found.names == ("0",)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 0.5 0.5 0.2", r"clip_1\.txt: line 2: should be class cx cy width height \[confidence\], found 4 numbers"),
        ("0 .1 .1 .2 .1 .2 .2 .1 .2", "polygons are no boxes"),
        ("person 0.5 0.5 0.2 0.2", "should be numbers alone"),
        ("1.5 0.5 0.5 0.2 0.2", "the class should be a whole number"),
        ("-1 0.5 0.5 0.2 0.2", "the class should be a whole number"),
        ("0 320 240 20 20", "shares of the picture's width and height"),
        ("0 nan 0.5 0.2 0.2", "shares of the picture's"),
        ("0 0.5 0.5 -0.2 0.2", "should not be negative"),
        ("0 0.5 0.5 0.2 0.2 inf", "the confidence should be a number"),
        ("0 0.5 0.5 0.2 0.2 17", r"clip_1\.txt: line 2: the sixth number, 17, is no confidence: .*save_conf=True, or"),
        ("0 0.5 0.5 0.2 0.2 2 17", "the sixth number, 2, is no confidence"),
    ],
)
def test_broken_lines_are_named(tmp_path: Path, line: str, message: str) -> None:
    write(tmp_path / "clip_1.txt", "0 0.5 0.5 0.2 0.4", line)
    with pytest.raises(InputError, match=message):
        read_yolo_labels(str(tmp_path), "clip", {})


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_files_of_windows(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "clip_1.txt").write_bytes("0 0.5 0.5 0.2 0.4 1\r\n1 0.1 0.1 0.2 0.2 0.5\r\n".encode(encoding))
    (tmp_path / "classes.txt").write_bytes("person\r\nvélo\r\n".encode(encoding))
    found = read_yolo_labels(str(tmp_path), "clip", {})
    assert found.names == ("person", "vélo") and found.detect([image()])[0].scores.tolist() == [1, 0.5]
    (tmp_path / "classes.txt").write_bytes("vélo\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"classes\.txt: is no UTF-8 text"):
        read_yolo_labels(str(tmp_path), "clip", {})


def test_nothing_of_this_video(tmp_path: Path) -> None:
    write(tmp_path / "other_1.txt", "0 0.5 0.5 0.2 0.4")
    with pytest.raises(InputError, match=r"holds no labels of clip; wanted are clip_1\.txt"):
        read_yolo_labels(str(tmp_path), "clip", {})
    with pytest.raises(InputError, match=r"called like its pictures, as a\.txt"):
        read_yolo_labels(str(tmp_path), "seq", {"a.jpg": 0})
    write(tmp_path / "other_000001.txt", "0 0.5 0.5 0.2 0.4")
    with pytest.raises(InputError, match="are both of frame 1"):
        read_yolo_labels(str(tmp_path), "other", {})


def test_the_job_takes_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("trackers")
    write_frames(tmp_path / "seq" / "img1", 6)
    make_video(tmp_path / "clip.mp4", 6, size=(60, 100))
    for step in range(6):
        boxes = [
            f"0 {(x0 + x1) / 200:.6f} {(y0 + y1) / 120:.6f} {(x1 - x0) / 100:.6f} {(y1 - y0) / 60:.6f} 0.9"
            for x0, y0, x1, y1 in square_boxes(step).tolist()
        ]
        write(tmp_path / "labels" / f"{step + 1:06d}.txt", *boxes)
        write(tmp_path / "labels" / f"clip_{step + 1}.txt", *boxes)
    videos = [str(tmp_path / "seq"), str(tmp_path / "clip.mp4")]
    arguments = ["--detections", str(tmp_path / "labels"), "--output", str(tmp_path / "out"), "--tracker", "sort"]
    assert main(["--video", videos[0], *arguments]) == 0
    rows = parse_mot_text((tmp_path / "out" / "seq.txt").read_bytes(), "seq")
    assert sorted(set(rows.frames.tolist())) == [3, 4, 5, 6]
    found = rows.boxes[rows.frames == 3]
    assert np.allclose(sorted(found.tolist()), sorted(square_boxes(2).tolist()), atol=2e-3)
    assert main(["--video", str(tmp_path / "none"), *arguments]) == 2
