"""The written video: every frame there, boxes in the colour of their id, any frame size."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import ImageDraw

from tests.tracking.make_tracking import make_frame, source_frame, square_boxes, tracked_objects
from trackmill.pipeline.media.drawing.palette import identity_colour
from trackmill.pipeline.tracking.drawing import DrawSettings, Label, Trails, clip_segment, draw_tracks
from trackmill.pipeline.tracking.video_writer import VideoWriter
from trackmill.schemas.masks import crop_mask


def write(path: Path, shapes: list[tuple[int, int]], fps: float = 10, indices: list[int] | None = None) -> Path:
    writer = VideoWriter(str(path), fps, DrawSettings(quality=10))
    for step, shape in enumerate(shapes):
        index = indices[step] if indices else step
        frame = replace(source_frame(index, make_frame(step, *shape)), time_s=index / fps)
        writer.write(frame, tracked_objects(square_boxes(step), [0, 1, 2]))
        assert not path.exists()
    return Path(writer.finish())


def read(path: Path) -> tuple[list[np.ndarray], list[float], float]:
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
        rate = float(container.streams.video[0].average_rate)
        return [frame.to_ndarray(format="rgb24") for frame in frames], [frame.time for frame in frames], rate


def test_frames_and_rate(tmp_path: Path) -> None:
    images, times, rate = read(write(tmp_path / "clip.mp4", [(60, 100)] * 12, 29.97))
    assert len(images) == 12
    assert abs(rate - 29.97) < 0.01
    assert np.allclose(np.diff(times), 1 / 29.97, atol=1e-3)
    for step, image in enumerate(images):
        plain = make_frame(step).astype(int)
        # The top left corner is plain; somewhere else something was drawn.
        assert np.abs(image.astype(int) - plain)[:3, :3].max() < 12
        assert np.abs(image.astype(int) - plain).max() > 60


def test_odd_and_mixed_sizes(tmp_path: Path) -> None:
    images, _, _ = read(write(tmp_path / "clip.mp4", [(61, 101), (120, 202), (61, 51), (61, 101)]))
    assert [image.shape for image in images] == [(62, 102, 3)] * 4
    narrow = images[2]
    assert narrow[:, :20].max() < 30, "over black"
    assert narrow[31, 51].min() > 60


def test_a_frame_that_was_skipped_leaves_its_time(tmp_path: Path) -> None:
    _, times, _ = read(write(tmp_path / "clip.mp4", [(60, 100)] * 3, 10, [0, 3, 4]))
    assert np.allclose(times, [0, 0.3, 0.4], atol=1e-3)


def test_nothing_to_show(tmp_path: Path) -> None:
    assert VideoWriter(str(tmp_path / "clip.mp4"), 25).finish() == ""
    started = VideoWriter(str(tmp_path / "clip.mp4"), 25)
    started.write(source_frame(0), tracked_objects(square_boxes(0), [0, 1, 2]))
    started.abandon()
    assert list(tmp_path.iterdir()) == []


def test_boxes_have_the_colour_of_their_id() -> None:
    image = np.full((200, 300, 3), 90, np.uint8)
    boxes = np.array([[100, 80, 160, 140], [-50, 150, 40, 500]], np.float32)
    drawn = draw_tracks(image, tracked_objects(boxes, [7, 12345]), Trails(5))
    assert (drawn[110, 100] == identity_colour(7)).all()
    assert (drawn[140, 130] == identity_colour(7)).all()
    assert (drawn[160, 40] == identity_colour(12345)).all(), "a box that leaves the image"
    assert (drawn[110, 130] == 90).all()
    assert (image == 90).all(), "the frame itself is not changed"


def test_a_huge_box_is_drawn_as_far_as_it_can_be_seen() -> None:
    image = np.full((60, 100, 3), 90, np.uint8)
    trails = Trails(5)
    for step in range(3):
        boxes = np.array([[20, 10, 1e9, 1e9], [-1e9, -1e9, 40, 30 + step], [1e8, 1e8, 1e9, 1e9]], np.float32)
        tracked = tracked_objects(boxes, [1, 2, 3])
        trails.add(step, tracked)
    drawn = draw_tracks(image, tracked, trails)
    assert (drawn[40, 20] == identity_colour(1)).all() and (drawn[10, 70] == identity_colour(1)).all()
    assert (drawn[20, 40] == identity_colour(2)).all()
    assert (drawn[50, 60] == 90).all(), "inside of the box nothing is drawn"


@pytest.mark.parametrize(
    ("begin", "end", "seen"),
    [
        ((1, 1), (4, 5), ((1, 1), (4, 5))),  # within
        ((-5, 5), (15, 5), ((0, 5), (10, 5))),  # across
        ((5, -1e9), (5, 1e9), ((5, 0), (5, 10))),  # very long
        ((-5, 0), (5, 10), ((0, 5), (5, 10))),  # over a corner
        ((-5, 20), (15, 20), None),  # beside it
        ((-5, 8), (3, 16), None),  # past a corner
        ((20, 20), (20, 20), None),  # a point outside
        ((3, 3), (3, 3), ((3, 3), (3, 3))),  # a point within
    ],
)
def test_lines_end_at_the_edge(begin: tuple, end: tuple, seen: tuple | None) -> None:
    piece = clip_segment(begin, end, (0, 0), (10, 10))
    assert piece is None if seen is None else np.allclose(piece, seen)


def test_masks_are_tinted() -> None:
    image = np.full((80, 80, 3), 90, np.uint8)
    mask = np.zeros((80, 80), bool)
    mask[30:50, 20:60] = True
    tracked = tracked_objects(np.array([[20, 30, 60, 50]]), [3], masks=[crop_mask(mask)])
    drawn = draw_tracks(image, tracked, Trails(5))
    assert (drawn[40, 40] != 90).any()
    assert (drawn[60, 40] == 90).all()


def test_trails_follow_and_forget() -> None:
    trails = Trails(3)
    image = np.full((80, 300, 3), 90, np.uint8)
    for step in range(6):
        # Object 9 is seen in the first frame only.
        boxes = np.array([[30 * step, 10, 30 * step + 10, 40], [200, 50, 210, 60]])[: 2 if step == 0 else 1]
        tracked = tracked_objects(boxes, [4, 9][: len(boxes)])
        trails.add(step, tracked)
    assert trails.of(4) == [(30 * step + 5, 40) for step in (3, 4, 5)]
    assert trails.of(9) == []
    assert len(trails) == 1, "nothing is kept of an object that is gone"
    drawn = draw_tracks(image, tracked, trails)
    assert (drawn[40, 130] == identity_colour(4)).all(), "between two points"
    none = Trails(0)
    none.add(0, tracked)
    assert len(none) == 0


@pytest.mark.parametrize(
    ("labels", "text"),
    [
        ((), "7 dog"),
        (("id",), "7"),
        (("score", "class"), "dog 0.88"),
        (("id", "class", "score"), "7 dog 0.88"),
        (("none",), ""),
    ],
)
def test_what_stands_at_a_box(labels: tuple[Label, ...], text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []
    monkeypatch.setattr(ImageDraw.ImageDraw, "text", lambda self, xy, text, **_: drawn.append(text))
    tracked = tracked_objects(np.array([[5, 30, 40, 50]]), [7], scores=[0.876], labels=[1], names=("cat", "dog"))
    draw_tracks(np.zeros((60, 100, 3), np.uint8), tracked, Trails(5), labels)
    assert drawn == ([text] if text else [])
