"""The demonstration's sequences: true objects that come and go, seeded, read by everybody who reads MOTChallenge."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trackmill.pipeline.demo.objects import MIN_SIDE, MIN_VISIBLE, Truth, detect
from trackmill.pipeline.demo.people import NUM_PEOPLE, people
from trackmill.pipeline.demo.sequences import write_camera_sequence, write_video_sequence
from trackmill.pipeline.evaluation.readers.mot_layout import find_sequences
from trackmill.pipeline.sources.packaged import packaged_media
from trackmill.pipeline.tracking.detections import read_file_detections
from trackmill.pipeline.tracking.frame_reader import ReadLimits
from trackmill.pipeline.tracking.frames import open_frames
from trackmill.schemas.boxes import iou_matrix

FRAMES = 40


def packaged(stem: str) -> str:
    try:
        return next(path for path in packaged_media() if Path(path).stem == stem)
    except (ImportError, StopIteration):
        pytest.skip(f"the packaged picture or clip {stem} is not installed")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("camera") / "coffee"
    write_camera_sequence(packaged("coffee"), str(folder), FRAMES, seed=0)
    return folder


def columns(path: Path) -> np.ndarray:
    return np.loadtxt(path, delimiter=",", ndmin=2)


def test_objects_leave_and_come_back(folder: Path) -> None:
    rows = columns(folder / "gt" / "gt.txt")
    assert len(set(map(tuple, rows[:, :2]))) == len(rows)
    gaps = {identity: np.diff(rows[rows[:, 1] == identity, 0]).max(initial=1) for identity in np.unique(rows[:, 1])}
    assert len(gaps) >= 5
    assert sum(gap > 5 for gap in gaps.values()) >= 2
    x, y, width, height = rows[:, 2:6].T
    assert (x >= 0).all() and (y >= 0).all() and (x + width <= 320.001).all() and (y + height <= 240.001).all()
    assert min(width.min(), height.min()) >= MIN_SIDE - 0.001
    assert rows[:, 8].min() >= MIN_VISIBLE - 0.001


def test_the_truth_of_a_still_region_has_its_pixels(folder: Path) -> None:
    """Between two frames every box moves as the pixels do: its content looks the same when cut out and aligned."""
    rows = columns(folder / "gt" / "gt.txt")
    compared = []
    for first in rows[rows[:, 8] == 1]:
        again = rows[(rows[:, 0] == first[0] + 1) & (rows[:, 1] == first[1]) & (rows[:, 8] == 1)]
        if len(again):
            here, there = (cut(folder, row) for row in (first, again[0]))
            moved = there[:, 8:]  # the same cut, a quarter of its width beside
            compared.append((np.abs(here - there).mean(), np.abs(here[:, :-8] - moved).mean()))
    right, wrong = np.array(compared).T
    assert len(compared) > 20
    assert np.median(right) < 0.6 * np.median(wrong)


def cut(folder: Path, row: np.ndarray) -> np.ndarray:
    with Image.open(folder / "img1" / f"{int(row[0]):06d}.jpg") as picture:
        x, y, width, height = row[2:6]
        part = picture.convert("L").resize((32, 32), Image.Resampling.BILINEAR, (x, y, x + width, y + height))
    values = np.asarray(part, float)
    return values / values.mean()  # without the exposure


def test_our_readers_read_it(folder: Path) -> None:
    found = find_sequences(str(folder.parent))
    assert list(found) == ["coffee"]
    assert found["coffee"].length() == FRAMES
    reader = open_frames(str(folder), ReadLimits())
    assert (reader.name, reader.fps, reader.num_frames) == ("coffee", 10.0, FRAMES)
    detections = read_file_detections(str(folder / "det" / "det.txt"), reader, None, None)
    assert detections is not None
    assert len(detections) == len(columns(folder / "det" / "det.txt"))


def test_the_same_seed_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    def digests(root: Path) -> dict[str, str]:
        return {
            str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(root.rglob("*"))
            if path.is_file()
        }

    write_camera_sequence(packaged("coffee"), str(tmp_path / "a" / "coffee"), FRAMES, seed=0)
    assert digests(tmp_path / "a" / "coffee") == digests(folder)
    write_camera_sequence(packaged("coffee"), str(tmp_path / "b" / "coffee"), FRAMES, seed=1)
    other = digests(tmp_path / "b" / "coffee")
    assert other["gt/gt.txt"] != digests(folder)["gt/gt.txt"]
    assert other["det/det.txt"] != digests(folder)["det/det.txt"]


def test_detections_are_near_the_truth_but_not_perfect() -> None:
    rows = [
        Truth(frame=frame, identity=identity, box=(x, 60.0, x + 50, 120.0), visible=1.0)
        for frame in range(200)
        for identity, x in ((1, 20.0), (2, 140.0), (3, 240.0))
    ]
    found = detect(rows, 200, np.random.default_rng(3))
    true = np.array([row.box for row in rows[:3]], np.float32)
    best = iou_matrix(found.boxes, true).max(axis=1)
    near = best > 0.5
    assert 0.85 * 600 < near.sum() < 0.95 * 600
    assert 0.75 < best[near].mean() < 0.95
    assert 60 < (~near).sum() < 160
    assert found.scores[near].mean() > found.scores[~near].mean() + 0.1
    assert (np.diff(found.frames) >= 0).all()


def test_a_picture_without_regions_is_refused(tmp_path: Path) -> None:
    Image.new("RGB", (640, 480), (90, 90, 90)).save(tmp_path / "plain.png")
    with pytest.raises(ValueError, match=r"plain\.png: no region in it can pass for an object"):
        write_camera_sequence(str(tmp_path / "plain.png"), str(tmp_path / "plain"), 4, seed=0)


def test_every_second_frame_of_a_video(tmp_path: Path) -> None:
    assert write_video_sequence(packaged("bikes"), str(tmp_path / "bikes"), 4) == 4
    reader = open_frames(str(tmp_path / "bikes"), ReadLimits())
    assert (reader.num_frames, reader.fps) == (4, 12.5)
    assert not (tmp_path / "bikes" / "det").exists()
    assert not (tmp_path / "bikes" / "gt" / "gt.txt").read_bytes(), "nobody is there yet"


def test_who_is_in_the_video() -> None:
    rows = people(125, 2)
    assert {row.identity for row in rows} == set(range(1, NUM_PEOPLE + 1))
    assert all(0 <= row.box[0] < row.box[2] <= 640 and 0 <= row.box[1] < row.box[3] <= 272 for row in rows)
    assert len({(row.frame, row.identity) for row in rows}) == len(rows)
    # The van is before the cyclist from frame 83 to 103 of the video.
    cyclist = [row.frame for row in rows if row.identity == 2]
    assert max(np.diff(cyclist)) == 11 and not any(42 <= frame <= 51 for frame in cyclist)
    every = {row.frame: row.box for row in people(250, 1) if row.identity == 1}
    assert every[30] == (165, 0, 384, 272) and every[31] == (178.5, 0, 397, 272)
