"""GIF and APNG with several pictures are videos."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from tests.make_numbered import frames_read, numbered_picture
from tests.media.read_frames import mined, tracked
from tests.sources.claiming import claim_all
from trackmill.pipeline.sources.base import ReadSettings
from trackmill.pipeline.tracking.frames import open_frames

ALL = {index: index for index in range(12)}


def animation(path: Path, count: int = 12) -> Path:
    first, *others = (Image.fromarray(numbered_picture(index)).quantize(32) for index in range(count))
    if path.suffix != ".gif":
        first, *others = (Image.fromarray(numbered_picture(index)) for index in range(count))
    first.save(path, save_all=True, append_images=others, duration=100)
    return path


@pytest.mark.parametrize("name", ["a.gif", "a.png"])
def test_all_pictures_are_tracked(tmp_path: Path, name: str) -> None:
    path = animation(tmp_path / name)
    assert tracked(path) == (ALL, [], 12)
    assert tracked(tmp_path) == (ALL, [], 12), "the only picture of a folder"
    assert open_frames(str(path)).fps == pytest.approx(10, abs=0.1)
    assert frames_read(path, [7]) == [(7, 0.7)], "each picture is drawn over those before"


def test_gifs_are_mined_as_videos_where_that_is_asked_for(tmp_path: Path) -> None:
    path = animation(tmp_path / "a.gif")
    assert mined(path) == (ALL, [])
    items, _, _ = claim_all([str(path)], "auto", ReadSettings())
    assert [item.source for item in items] == ["images"]


def test_a_picture_is_a_picture(tmp_path: Path) -> None:
    Image.fromarray(numbered_picture(5)).save(tmp_path / "a.png")
    assert tracked(tmp_path / "a.png") == ({0: 5}, [], 1)


@pytest.mark.parametrize("name", ["a.webp", "a.tiff"])
def test_what_cannot_be_read_as_a_video_is_not_cut_down_to_its_first_picture(tmp_path: Path, name: str) -> None:
    path = animation(tmp_path / name, 5)
    with pytest.raises(ValueError, match=rf"{name}: holds 5 pictures, .* make an MP4"):
        open_frames(str(path))
